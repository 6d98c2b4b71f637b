"""Which driver is near."""

from rides.service import Answer, Call, serve


def nearest(call: Call) -> Answer:
    """The driver for `?location=L`."""
    location = int(call.params["location"])
    return {"name": f"T{700000 + location}C", "location": location + 40}


if __name__ == "__main__":
    serve("drivers", 8082, nearest)
