"""The front end: finds a customer, a driver and a route, and answers with all of it."""

from rides.service import Answer, Call, serve


def dispatch(call: Call) -> Answer:
    """Order a ride for `?customer=ID`."""
    customer = call.get("customers", f"/?id={call.params.get('customer', '1')}")
    driver = call.get("drivers", f"/?location={customer['location']}")
    route = call.get("routes", f"/?from={driver['location']}&to={customer['location']}")
    return {"customer": customer["name"], "driver": driver["name"], "minutes": route["minutes"]}


if __name__ == "__main__":
    serve("frontend", 8080, dispatch)
