"""A change to `drivers`: it prefers a driver who is closer."""

from rides.service import Answer, Call, serve


def nearest(call: Call) -> Answer:
    """The closest driver for `?location=L`."""
    location = int(call.params["location"])
    return {"name": f"T{700000 + location}X", "location": location + 10}


if __name__ == "__main__":
    serve("drivers", 8082, nearest)
