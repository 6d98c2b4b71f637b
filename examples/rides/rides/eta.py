"""How long a distance takes."""

from rides.service import Answer, Call, serve


def estimate(call: Call) -> Answer:
    """Minutes for `?distance=D`."""
    return {"minutes": int(call.params["distance"]) // 4}


if __name__ == "__main__":
    serve("eta", 8084, estimate)
