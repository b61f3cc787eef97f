"""Asking the policies. There is one way to do it, whoever asks."""

from __future__ import annotations

from secrethub.engines.engine import Identity, Method
from secrethub.engines.mounts import Route
from secrethub.engines.question import question_of
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, Denied, decide


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
    question = question_of(route, method, path, when, creates=creates)
    verdict = decide(question, await core.policies.compiled(identity.policies))
    if isinstance(verdict, Denied):
        raise PermissionDenied(verdict.reason)
    return verdict
