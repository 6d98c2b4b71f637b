"""A write pipeline in miniature: what the server does with a built-in kind, without a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.kinds.services import AddressPool
from sandlane.local.apiserver.kinds.table import Kind, builtin_kinds


class Server:
    """Creates and updates objects as the write pipeline does."""

    def __init__(self) -> None:
        self.stored: list[Object] = []
        self.addresses = AddressPool("10.96.0.0/29", lambda: self.stored)

    def kind(self, obj: Object) -> Kind:
        """The row of the table."""
        found = [each for each in builtin_kinds() if (each.resource.api_version, each.resource.kind) == self._type(obj)]
        return found[0]

    @staticmethod
    def _type(obj: Object) -> tuple[Any, Any]:
        return obj.get("apiVersion"), obj.get("kind")

    def create(self, obj: Object) -> Object:
        """A valid object as it comes back."""
        created, errors = self.try_create(obj)
        assert errors == []
        self.stored.append(created)
        return created

    def try_create(self, obj: Object) -> tuple[Object, list[FieldError]]:
        """The object and its faults."""
        kind = self.kind(obj)
        strategy = kind.strategy
        strategy.prune(obj)
        obj["metadata"].setdefault("uid", "u-1")
        if kind.resource.namespaced:
            obj["metadata"].setdefault("namespace", "ns")
        strategy.default(obj)
        strategy.prepare_create(obj, self)
        errors = strategy.validate_create(obj)
        if not errors:
            strategy.allocate(obj, None, self)
        return obj, errors

    def update(self, old: Object, new: Object) -> tuple[Object, list[FieldError]]:
        """A changed object and its faults."""
        strategy = self.kind(old).strategy
        strategy.prune(new)
        strategy.default(new)
        strategy.prepare_update(new, old, self)
        errors = strategy.validate_update(new, old)
        if not errors:
            strategy.allocate(new, old, self)
        return new, errors


@pytest.fixture
def server() -> Server:
    """A fresh server with six addresses."""
    return Server()


@pytest.fixture
def make() -> Callable[..., Object]:
    """Makes an object: `make("apps/v1", "Deployment", "d", spec={...})`."""

    def make_object(api_version: str, kind: str, name: str = "x", /, **fields: Any) -> Object:
        return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}

    return make_object
