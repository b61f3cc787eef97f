"""What a token may do with paths: the answers of the one decision, asked for every capability.

Both languages of rules take part, and conditions as they hold now: for the caller itself from its address,
for another token from an unknown one. A rule that demands parameters or a wrapped answer grants nothing
here, for a bare request would be refused. Slashes around a path mean nothing, and ``+`` and ``*`` in it are
characters like any others; each path is told as it was asked for.
"""

from __future__ import annotations

import msgspec

from secrethub.engines.engine import Answer, Capability, Context, Hidden, Method, Operation, circumstances
from secrethub.engines.flat import flat_view
from secrethub.engines.identity import Identity
from secrethub.engines.question import question_of
from secrethub.engines.token.known import find_by_accessor, good_token, holder_of
from secrethub.errors import IntegrityFailure, InvalidRequest, NotFound, PermissionDenied
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, CompiledPolicies, decide
from secrethub.policy.names import fold_policy_path
from secrethub.wire.canonical_path import check_path

_MOST = 256
_METHODS: tuple[tuple[Capability, Method], ...] = (
    ("create", "write"),
    ("delete", "delete"),
    ("list", "list"),
    ("patch", "patch"),
    ("read", "read"),
    ("update", "write"),
)
_PLAIN = frozenset({"path", "paths"})


class OwnPaths(msgspec.Struct, frozen=True):
    """``paths``, of which ``path`` is an older name."""

    paths: list[str] | None = None
    path: list[str] | None = None


class TokensPaths(Hidden, msgspec.Struct, frozen=True):
    """``token``: whose capabilities; paths as for one's own."""

    token: str = ""
    paths: list[str] | None = None
    path: list[str] | None = None


class AccessorsPaths(Hidden, msgspec.Struct, frozen=True):
    """``accessor``: of the token; paths as for one's own."""

    accessor: str = ""
    paths: list[str] | None = None
    path: list[str] | None = None


def capability_operations() -> tuple[Operation, ...]:
    """Return the operations that tell what a token may do."""
    return (
        Operation(
            name="sys.capabilities",
            method="write",
            pattern="capabilities",
            handler=of_token,
            response=dict[str, list[str]],
            capability="update",
            request=TokensPaths,
            plain=_PLAIN,
            summary="Tell what a token may do with paths.",
        ),
        Operation(
            name="sys.capabilities-self",
            method="write",
            pattern="capabilities-self",
            handler=of_caller,
            response=dict[str, list[str]],
            capability="update",
            request=OwnPaths,
            plain=_PLAIN,
            summary="Tell what the caller may do with paths.",
        ),
        Operation(
            name="sys.capabilities-accessor",
            method="write",
            pattern="capabilities-accessor",
            handler=of_accessor,
            response=dict[str, list[str]],
            capability="update",
            request=AccessorsPaths,
            plain=_PLAIN,
            summary="Tell what the token that has an accessor may do with paths.",
        ),
    )


async def of_caller(context: Context, body: OwnPaths) -> Answer:
    """Answer for whoever asks."""
    assert context.identity is not None
    when = circumstances(context.identity, context.now, context.client_address)
    return await _answer(context, context.identity, body, when)


async def of_token(context: Context, body: TokensPaths) -> Answer:
    """Answer for a token that the caller has."""
    try:
        row = await good_token(context, body.token)
    except PermissionDenied as exc:
        raise InvalidRequest("invalid token") from exc
    identity = await holder_of(context.core, row, context.now)
    return await _answer(context, identity, body, circumstances(identity, context.now, None))


async def of_accessor(context: Context, body: AccessorsPaths) -> Answer:
    """Answer for a token of which the caller has the accessor."""
    row = await find_by_accessor(context, body.accessor)
    try:
        identity = await holder_of(context.core, row, context.now)
    except PermissionDenied as exc:
        raise InvalidRequest("invalid accessor") from exc
    return await _answer(context, identity, body, circumstances(identity, context.now, None))


async def _answer(
    context: Context,
    identity: Identity,
    body: OwnPaths | TokensPaths | AccessorsPaths,
    when: Circumstances,
) -> Answer:
    wanted = body.paths or body.path
    if not wanted:
        raise InvalidRequest("paths must be supplied")
    if len(wanted) > _MOST:
        raise InvalidRequest(f"at most {_MOST} paths are looked at in one request")
    policies = await context.core.policies.compiled(identity)
    found = {path: await _capabilities(context, policies, path, when) for path in wanted}
    if len(wanted) == 1:
        # Where older clients look.
        return Answer(data={**found, "capabilities": found[wanted[0]]})
    return Answer(data=found)


async def _capabilities(
    context: Context, policies: CompiledPolicies, given: str, when: Circumstances
) -> list[str]:
    path = fold_policy_path(check_path(given.lstrip("/")))
    if policies.root:
        return ["root"]
    found: set[str] = set()
    for capability, method in _METHODS:
        here = flat_view(method, path)
        try:
            route = await context.core.mounts.route(method, here)
        except (NotFound, IntegrityFailure):
            route = None
        question = question_of(route, method, here, when, creates=capability == "create")
        for sudo in (False, True):
            asked = msgspec.structs.replace(question, needs_sudo=sudo)
            if isinstance(decide(asked, policies), Allowed):
                found.add("sudo" if sudo else capability)
    return sorted(found) or ["deny"]
