"""Why a patch cannot be applied."""

from __future__ import annotations


class PatchError(ValueError):
    """A patch that is malformed or does not fit the document. `status` is what kube-apiserver answers in that case."""

    status = 422


class MalformedPatchError(PatchError):
    """The patch is not a patch of its type at all (400)."""

    status = 400


class PatchTooLargeError(PatchError):
    """The patch has more operations than kube-apiserver takes (413)."""

    status = 413


class PatchDirectiveError(PatchError):
    """A strategic merge with an unknown directive or an item without its key (kube-apiserver answers 500)."""

    status = 500
