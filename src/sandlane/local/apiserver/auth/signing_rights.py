"""Rights on signers: who approves a CertificateSigningRequest, or puts a certificate into it, needs `approve` or `sign` on its signer."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.x509.oid import NameOID

from sandlane.kube.resource import Object
from sandlane.local.apiserver.auth.rbac import Attributes, Rbac
from sandlane.local.apiserver.auth.signer import SIGNER, STORAGE
from sandlane.local.apiserver.auth.user import MASTERS, User
from sandlane.local.apiserver.status import StatusError, forbidden
from sandlane.local.apiserver.writer import Write


class SigningRights:
    """Checks writes of CertificateSigningRequests."""

    def __init__(self, rbac: Rbac) -> None:
        self._rbac = rbac

    def check(self, write: Write, new: Object | None, old: Object | None) -> None:
        """Raises `StatusError` 403."""
        user = write.user
        if write.type_.storage_key != STORAGE or new is None or user is None:
            return
        name, signer = new["metadata"].get("name", ""), new["spec"].get("signerName", "")
        if old is None:
            if signer == SIGNER and MASTERS in _groups(new["spec"]):
                raise _refused(name, f"use of {SIGNER} signer with {MASTERS} group is not allowed")
        elif write.subresource == "approval" and not self._may(user, "approve", signer):
            raise _refused(name, f'user not permitted to approve requests with signerName "{signer}"')
        elif (
            write.subresource == "status"
            and _certificate(new) != _certificate(old)
            and not self._may(user, "sign", signer)
        ):
            raise _refused(name, f'user not permitted to sign requests with signerName "{signer}"')

    def _may(self, user: User, verb: str, signer: str) -> bool:
        """Whether a user has a verb on a signer, or on all signers of its domain."""
        names = (signer, f"{signer.partition('/')[0]}/*")
        wanted = [Attributes(verb, STORAGE[0], "signers", name=name) for name in names]
        return any(self._rbac.allowed(user.name, user.groups, each) is not None for each in wanted)


def _refused(name: str, why: str) -> StatusError:
    return forbidden(*STORAGE, name, why)


def _certificate(obj: Object) -> object:
    return (obj.get("status") or {}).get("certificate")


def _groups(spec: Object) -> list[str]:
    """The groups that a request asks for; none where it cannot be read (the signer says so)."""
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or "", validate=True))
    except (ValueError, binascii.Error):
        return []
    return [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
