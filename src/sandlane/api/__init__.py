"""The language of the product: Sandbox, RouteGroup and LocalWorkload as frozen types, conditions, defaults and rules. No I/O."""
