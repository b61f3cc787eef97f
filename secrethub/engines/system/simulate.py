"""Trying policies: what a set of them, written or only proposed, would decide, and by which rules.

The decision and its trace are those of a real request (``secrethub/policy/decision.py``): there is no second
evaluation that could differ.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.auth.networks import parse_address
from secrethub.engines.engine import Answer, Context, Hidden, Method, Operation, circumstances
from secrethub.engines.flat import flat_view
from secrethub.engines.question import question_of
from secrethub.engines.system.answers import SimulatedAnswer
from secrethub.errors import IntegrityFailure, InvalidRequest, NotFound, PermissionDenied
from secrethub.policy.builtin import ROOT, normalise_policy_name
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, CompiledPolicies, Denied, Question, compile_policies, decide
from secrethub.policy.document import parse_policy
from secrethub.policy.names import fold_policy_path
from secrethub.policy.placeholders import AGENT_ID, AGENT_NAME
from secrethub.wire.canonical_path import check_path
from secrethub.wire.durations import parse_duration, parse_rfc3339

_MOST = 64
_METHODS: dict[str, Method] = {
    "create": "write",
    "read": "read",
    "update": "write",
    "patch": "patch",
    "delete": "delete",
    "list": "list",
}


class AgentNamed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``{{agent.id}}`` and ``{{agent.name}}`` stand for."""

    id: str
    name: str


class SimulateRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question.

    Attributes:
        path: as in a request, without ``v1/``.
        capability: create, read, update, patch, delete or list.
        policies: names of policies that are written.
        documents: policies that are only proposed, as text or object.
        client_address: the client's; unknown when absent.
        at: the instant, RFC 3339; now when absent.
        token_ttl: how long the token lives in all; 0 for ever; no token when absent.
        wrap_ttl: how long the answer shall stay wrapped.
        parameters: of body and query.
        agent: ``id`` and ``name`` of the agent that asks, for placeholders; no agent when absent.
        application_policies: names of policies of the application that the agent asks for, which must allow
            it as well; for none when absent, for one without any when empty.
    """

    path: str
    capability: str = "read"
    policies: list[str] = []
    documents: list[str | dict[str, Any]] = []
    client_address: str | None = None
    at: str | None = None
    token_ttl: str | int | None = None
    wrap_ttl: str | int = 0
    parameters: dict[str, Any] = {}
    agent: AgentNamed | None = None
    application_policies: list[str] | None = None


def simulate_operations() -> tuple[Operation, ...]:
    """Return the operation that tries policies."""
    return (
        Operation(
            name="sys.policies.simulate",
            method="write",
            pattern="policies/simulate",
            handler=simulate,
            response=SimulatedAnswer,
            capability="update",
            request=SimulateRequest,
            strict=True,
            plain=frozenset(
                {"path", "capability", "policies", "application_policies", "client_address", "at"}
            ),
            summary="Tell what policies would decide about a request, and by which rules.",
        ),
    )


async def simulate(context: Context, body: SimulateRequest) -> Answer:
    """Decide and answer verdict, reason and every rule that took part."""
    if body.capability not in _METHODS:
        raise InvalidRequest(f"capability is one of {', '.join(_METHODS)}")
    if not body.policies and not body.documents:
        raise InvalidRequest("name policies, or give documents to try")
    method = _METHODS[body.capability]
    path = flat_view(method, fold_policy_path(check_path(body.path.removeprefix("/"))))
    core = context.core
    try:
        route = await core.mounts.route(method, path)
    except (NotFound, IntegrityFailure):
        route = None
    # Where nothing tells to create from to update, a request is asked for update alone.
    told = route is None or route.operation is None or route.operation.exists is not None
    creates = told and body.capability == "create"
    question = question_of(route, method, path, _circumstances(context, body), creates=creates)
    values = {} if body.agent is None else {AGENT_ID: body.agent.id, AGENT_NAME: body.agent.name}
    policies = await _policies(context, body.policies, body.documents, values)
    if body.application_policies is not None:
        narrowing = await _policies(context, body.application_policies, [], values)
        policies = policies.narrowed("the application", narrowing)
    verdict = decide(question, policies)
    allowed = isinstance(verdict, Allowed)
    return Answer(
        data={
            "allowed": allowed,
            "reason": "" if isinstance(verdict, Allowed) else verdict.reason,
            "path": path,
            "native_path": question.native_path,
            "operation": None if route is None or route.operation is None else route.operation.name,
            "capability": question.acl_capability,
            "native_capability": question.native_capability,
            "needs_sudo": question.needs_sudo,
            "trace": msgspec.to_builtins(verdict.trace),
        },
        detail={"allowed": allowed},
    )


def _circumstances(context: Context, body: SimulateRequest) -> Circumstances:
    at = None if body.at is None else parse_rfc3339(body.at)
    address = body.client_address
    return Circumstances(
        now=at or context.now,
        client_address=None if address is None else parse_address(address, "client_address"),
        token_ttl=None if body.token_ttl is None else parse_duration(body.token_ttl),
        wrap_ttl=parse_duration(body.wrap_ttl),
        parameters=lambda: body.parameters,
    )


async def _policies(
    context: Context, given: list[str], documents: list[str | dict[str, Any]], values: dict[str, str]
) -> CompiledPolicies:
    """Return the policies to try.

    Raises:
        InvalidRequest: too many, no policy of that name, or a document that is not in order.
        PermissionDenied: the caller may not read one of that name, of which the answer would tell.
    """
    if len(given) + len(documents) > _MOST:
        raise InvalidRequest(f"at most {_MOST} policies are tried at once")
    names = [normalise_policy_name(name) for name in given]
    await _check_readable(context, names)
    parsed = [
        parse_policy(f"proposed-{number}", document) for number, document in enumerate(documents, start=1)
    ]
    for name in names:
        if name == ROOT:
            continue
        found = await context.core.policies.read(name)
        if found is None:
            raise InvalidRequest(f"no policy is named {name}")
        parsed.append(found)
    return compile_policies(parsed, root=ROOT in names, values=values)


async def _check_readable(context: Context, names: list[str]) -> None:
    assert context.identity is not None
    own = await context.core.policies.compiled(context.identity)
    when = circumstances(context.identity, context.now, context.client_address, wrap_ttl=context.wrap_ttl)
    for name in names:
        path = f"sys/policies/acl/{name}"
        question = Question(
            path=path, acl_capability="read", native_path=path, native_capability="read", when=when
        )
        if isinstance(decide(question, own), Denied):
            raise PermissionDenied(f"no policy allows read at {path}")
