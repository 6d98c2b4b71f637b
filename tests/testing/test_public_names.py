"""What outsiders build their own controllers with: a name that goes or changes is a decision, never an accident."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
from pathlib import Path

import sandlane.kube
import sandlane.runtime
import sandlane.testing

LIST = Path(__file__).with_name("public_names.txt")
"""One module a line, with its public classes and functions. `pytest --update-golden` rewrites it."""
PACKAGES = (sandlane.kube, sandlane.runtime, sandlane.testing)


def modules() -> list[types.ModuleType]:
    """All modules of the packages that outsiders use."""
    found: list[types.ModuleType] = list(PACKAGES)
    for package in PACKAGES:
        names = [each.name for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
        found += [importlib.import_module(name) for name in names]
    return found


def public(module: types.ModuleType) -> dict[str, object]:
    """Its public classes and functions: those made in it, and those that the package hands on."""
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isroutine(value))
    }
    if hasattr(module, "__path__"):
        return own
    return {name: value for name, value in own.items() if getattr(value, "__module__", "") == module.__name__}


def test_the_exported_names_are_these(update_golden: bool) -> None:
    """Exactly this list."""
    lines = [f"{module.__name__}: {' '.join(sorted(names))}" for module in modules() if (names := public(module))]
    text = "\n".join(sorted(lines)) + "\n"
    if update_golden:
        LIST.write_text(text)
    assert text == LIST.read_text()


def test_every_exported_name_says_what_it_is_for() -> None:
    """Each has a docstring of its own, and so has each module."""
    silent = [module.__name__ for module in modules() if not module.__doc__]
    for module in modules():
        for name, value in public(module).items():
            if not (vars(value) if inspect.isclass(value) else {"__doc__": value.__doc__}).get("__doc__"):
                silent.append(f"{module.__name__}.{name}")
    assert silent == []


def test_the_words_of_a_test_are_in_one_place() -> None:
    """`from sandlane.testing import FakeCluster, Harness, ManualClock`, and what goes with them."""
    assert sorted(public(sandlane.testing)) == [
        "Differs", "Failure", "FakeCluster", "Harness", "ManualClock", "Report", "Schedule", "Watching",
        "captured_events", "garbage_collection",
    ]  # fmt: skip
