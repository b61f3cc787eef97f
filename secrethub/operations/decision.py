"""Asking the policies. There is one way to do it, whoever asks."""

from __future__ import annotations

from secrethub.engines.engine import Context, Method
from secrethub.engines.identity import Identity
from secrethub.engines.mounts import Route
from secrethub.engines.question import question_of
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure, InvalidRequest, PermissionDenied
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
    verdict = decide(question, await core.policies.compiled(identity))
    if isinstance(verdict, Denied):
        raise PermissionDenied(verdict.reason)
    return verdict


async def allowed(
    context: Context, route: Route | None, method: Method, trouble: IntegrityFailure | None
) -> tuple[Allowed, IntegrityFailure | None]:
    """Take the decision about a request; return it, and why it cannot be told what is there.

    Args:
        context: of the request, with an identity.
        route: its way.
        method: how.
        trouble: why it could not even be told who answers.

    Raises:
        PermissionDenied: no; ``reason`` says why.
        InvalidRequest: yes, but the path cannot be.
    """
    assert context.identity is not None
    exists = None if route is None or route.operation is None or method != "write" else route.operation.exists
    creates, wrong = False, None
    if exists is not None:
        try:
            creates = not await exists(context)
        except (InvalidRequest, IntegrityFailure) as exc:
            wrong = exc  # told only to whoever may ask
    verdict = await require(
        context.core, context.identity, route, method, context.path, context.when, creates=creates
    )
    if isinstance(wrong, IntegrityFailure):
        trouble = wrong
    elif wrong is not None:
        raise wrong
    return verdict, trouble
