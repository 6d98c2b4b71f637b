"""`python -m bench [NAME ...] [--publish]`: run benchmarks, print their tables, put them into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import bench
from bench.report import publish

SHARED = {
    "__main__",
    "report",
    "load",
    "faulty",
    "reverse_ssh",
    "connect_through",
    "kube_server",
    "kube_store",
    "runtime_cases",
    "route_load",
    "routing_clients",
    "route_server",
}


def names() -> list[str]:
    """The benchmarks that there are: modules here with a function `run() -> list[Table]`."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if module.name not in SHARED)


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(names())} (default: all)")
    parser.add_argument("--publish", action="store_true", help="write the tables into docs/benchmarks.md")
    args = parser.parse_args()
    if unknown := set(args.names) - set(names()):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    for name in args.names or names():
        for table in importlib.import_module(f"bench.{name}").run():
            print(table.markdown())
            if args.publish:
                publish(table)


if __name__ == "__main__":
    main()
