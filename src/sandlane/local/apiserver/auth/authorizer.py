"""Whether a request may be made: RBAC for everybody, with the texts of kube-apiserver; and impersonation."""

from __future__ import annotations

from urllib.parse import unquote

from sandlane.kube.transport import Request
from sandlane.local.apiserver.auth.rbac import Attributes, Rbac
from sandlane.local.apiserver.auth.user import (
    ANONYMOUS,
    AUTHENTICATED,
    SERVICE_ACCOUNT,
    UNAUTHENTICATED,
    User,
    service_account_groups,
)
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.status import StatusError, forbidden, internal

AUTHENTICATION = "authentication.k8s.io"
_PREFIX = "impersonate-"
_EXTRA = "impersonate-extra-"


class Authorizer:
    """Asks RBAC."""

    def __init__(self, rbac: Rbac) -> None:
        self._rbac = rbac

    async def authorize(self, user: User, info: RequestInfo) -> None:
        """Raises `StatusError` 403 unless a user may make a request."""
        if not info.resource:
            self._require(user, Attributes(info.verb, path=info.path))
            return
        name = info.name or info.selected_name
        self._require(user, Attributes(info.verb, info.group, info.resource, info.subresource, info.namespace, name))

    def act_as(self, user: User, request: Request) -> User:
        """The user that the `Impersonate-*` headers name, if `user` may be them. Raises `StatusError` 403."""
        headers = {name: value for name, value in request.headers.items() if name.startswith(_PREFIX)}
        if not headers:
            return user
        name = headers.pop("impersonate-user", "")
        groups = [each.strip() for each in headers.pop("impersonate-group", "").split(",") if each.strip()]
        uid = headers.pop("impersonate-uid", "")
        extra = {
            unquote(key.removeprefix(_EXTRA)): tuple(each.strip() for each in value.split(","))
            for key, value in headers.items()
            if key.startswith(_EXTRA)
        }
        if not name:
            raise internal("requested groups, uid or extra without impersonating a user")
        account = name.removeprefix(SERVICE_ACCOUNT).split(":") if name.startswith(SERVICE_ACCOUNT) else []
        if len(account) == 2:
            namespace = account[0]
            wanted = Attributes("impersonate", "", "serviceaccounts", namespace=namespace, name=account[1])
            groups = groups or list(service_account_groups(namespace))
        else:
            wanted = Attributes("impersonate", "", "users", name=name)
        self._require(user, wanted)
        for group in [each.strip() for each in request.headers.get("impersonate-group", "").split(",") if each.strip()]:
            self._require(user, Attributes("impersonate", "", "groups", name=group))
        if uid:
            self._require(user, Attributes("impersonate", AUTHENTICATION, "uids", name=uid))
        for key, values in extra.items():
            for value in values:
                self._require(user, Attributes("impersonate", AUTHENTICATION, "userextras", key, name=value))
        if not {AUTHENTICATED, UNAUTHENTICATED} & set(groups):
            groups.append(UNAUTHENTICATED if name == ANONYMOUS.name else AUTHENTICATED)
        return User(name, tuple(groups), uid, extra)

    def _require(self, user: User, wanted: Attributes) -> None:
        if self._rbac.allowed(user.name, user.groups, wanted) is None:
            raise refusal(user, wanted)


def refusal(user: User, wanted: Attributes) -> StatusError:
    """403, as kube-apiserver says it."""
    who = f'User "{user.name}" cannot {wanted.verb}'
    if wanted.path:
        return StatusError(403, "Forbidden", f'forbidden: {who} path "{wanted.path}"', {})
    resource = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    why = f'{who} resource "{resource}" in API group "{wanted.group}" {where}'
    return forbidden(wanted.group, wanted.resource, wanted.name, why)
