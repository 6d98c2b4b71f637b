"""Who customers are and where they wait."""

from rides.service import Answer, Call, serve

CUSTOMERS = {"1": ("Corner Bakery", 115), "2": ("Harbour Books", 211), "3": ("Hill Clinic", 577)}


def find(call: Call) -> Answer:
    """The customer `?id=ID`."""
    name, location = CUSTOMERS[call.params["id"]]
    return {"name": name, "location": location}


if __name__ == "__main__":
    serve("customers", 8081, find)
