"""The question that a request puts to the policies. There is one way to ask it, whoever asks."""

from __future__ import annotations

from secrethub.engines.engine import Capability, Identity, Method, Operation
from secrethub.engines.mounts import Route
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, Denied, Question, decide

_CAPABILITY: dict[Method, Capability] = {
    "read": "read",
    "write": "update",
    "delete": "delete",
    "list": "list",
    "patch": "patch",
}


async def require(
    core: Core,
    identity: Identity,
    route: Route | None,
    method: Method,
    path: str,
    when: Circumstances,
    *,
    creates: bool = False,
) -> Allowed:
    """Decide whether ``identity`` may do this, and return why.

    Args:
        core: this process.
        identity: who asks.
        route: the way of the request; None where nothing is mounted.
        method: how.
        path: the canonical path.
        when: what conditions are about.
        creates: a write of something that is not there yet.

    Raises:
        PermissionDenied: no; ``reason`` says why, for the ledger.
        IntegrityFailure: a policy's row is not authentic.
    """
    operation = None if route is None else route.operation
    question = Question(
        path=path,
        acl_capability="create" if creates else _CAPABILITY[method],
        needs_sudo=operation is not None and operation.sudo,
        native_path=_native_path(route, operation, path),
        native_capability=_native_capability(operation, method, creates=creates),
        when=when,
    )
    verdict = decide(question, await core.policies.compiled(identity.policies))
    if isinstance(verdict, Denied):
        raise PermissionDenied(verdict.reason)
    return verdict


def _native_path(route: Route | None, operation: Operation | None, path: str) -> str:
    """Return what native rules call it: the secret itself, not the engine's endpoint."""
    if route is None or operation is None or operation.subject is None:
        return path
    return (route.engine.native_prefix(route.mount.path) + route.params.get(operation.subject, "")).rstrip(
        "/"
    )


def _native_capability(operation: Operation | None, method: Method, *, creates: bool) -> Capability:
    if operation is None:
        return _CAPABILITY[method]
    return "create" if creates and operation.capability == "update" else operation.capability
