"""How to get there; asks `eta` how long it takes."""

from rides.service import Answer, Call, serve


def plan(call: Call) -> Answer:
    """The route `?from=A&to=B`."""
    distance = abs(int(call.params["from"]) - int(call.params["to"]))
    return {"distance": distance, "minutes": call.get("eta", f"/?distance={distance}")["minutes"]}


if __name__ == "__main__":
    serve("routes", 8083, plan)
