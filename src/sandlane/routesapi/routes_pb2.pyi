from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Filter(_message.Message):
    __slots__ = ("key", "namespace", "kind", "name", "sandbox")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    key: str
    namespace: str
    kind: str
    name: str
    sandbox: str
    def __init__(self, key: _Optional[str] = ..., namespace: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., sandbox: _Optional[str] = ...) -> None: ...

class ListRulesRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: Filter
    def __init__(self, filter: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class ListRulesResponse(_message.Message):
    __slots__ = ("rules", "digest")
    RULES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    digest: str
    def __init__(self, rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., digest: _Optional[str] = ...) -> None: ...

class WatchRulesRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: Filter
    def __init__(self, filter: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("key", "baseline", "sandbox", "via", "workload", "local", "routes")
    KEY_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    key: str
    baseline: Workload
    sandbox: str
    via: str
    workload: str
    local: bool
    routes: _containers.RepeatedCompositeFieldContainer[ServiceRoute]
    def __init__(self, key: _Optional[str] = ..., baseline: _Optional[_Union[Workload, _Mapping]] = ..., sandbox: _Optional[str] = ..., via: _Optional[str] = ..., workload: _Optional[str] = ..., local: _Optional[bool] = ..., routes: _Optional[_Iterable[_Union[ServiceRoute, _Mapping]]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("namespace", "kind", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ServiceRoute(_message.Message):
    __slots__ = ("service", "port", "host")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    service: str
    port: int
    host: str
    def __init__(self, service: _Optional[str] = ..., port: _Optional[int] = ..., host: _Optional[str] = ...) -> None: ...

class RuleEvent(_message.Message):
    __slots__ = ("op", "rule", "digest")
    class Op(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OP_UNSPECIFIED: _ClassVar[RuleEvent.Op]
        ADD: _ClassVar[RuleEvent.Op]
        REPLACE: _ClassVar[RuleEvent.Op]
        REMOVE: _ClassVar[RuleEvent.Op]
        SYNCED: _ClassVar[RuleEvent.Op]
        ALIVE: _ClassVar[RuleEvent.Op]
    OP_UNSPECIFIED: RuleEvent.Op
    ADD: RuleEvent.Op
    REPLACE: RuleEvent.Op
    REMOVE: RuleEvent.Op
    SYNCED: RuleEvent.Op
    ALIVE: RuleEvent.Op
    OP_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    op: RuleEvent.Op
    rule: Rule
    digest: str
    def __init__(self, op: _Optional[_Union[RuleEvent.Op, str]] = ..., rule: _Optional[_Union[Rule, _Mapping]] = ..., digest: _Optional[str] = ...) -> None: ...
