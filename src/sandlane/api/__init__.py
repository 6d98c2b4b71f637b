"""The language of the product: Sandbox, RouteGroup and LocalWorkload as frozen types, defaults, rules. No I/O."""
