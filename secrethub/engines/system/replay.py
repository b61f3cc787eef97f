"""A proposed policy against the past: which requests in the ledger it would decide in another way.

Each is decided twice, with the policies that its actor has today and with the proposed one in the place of
that name, by the decision of a real request. What an entry does not hold is not guessed: where a verdict
hangs on it the request is counted as undecided, with the reason.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from secrethub.audit.event import Entry
from secrethub.clock import from_micros, micros
from secrethub.engines.bindings import Application
from secrethub.engines.engine import Answer, Context, Method, Operation
from secrethub.engines.mounts import Route
from secrethub.engines.question import question_of
from secrethub.engines.runtime import Core
from secrethub.engines.system.actors import Actor, Actors
from secrethub.engines.system.answers import ReplayAnswer
from secrethub.errors import IntegrityFailure, InvalidRequest, NotFound
from secrethub.ids import is_uuid
from secrethub.policy.builtin import ROOT, check_policy_name
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, CompiledPolicies, Decision, Denied, compile_policies, decide
from secrethub.policy.document import ParsedPolicy, parse_policy
from secrethub.storage.archive import pruned_until
from secrethub.storage.ledger_decisions import Place, decided
from secrethub.wire.durations import format_rfc3339, parse_duration, parse_rfc3339

_LOOKED_AT = 2000
"""Entries of one page: about 0.2 s of decisions."""
_SHOWN = 200
_TURN = 50
_METHODS: tuple[Method, ...] = ("read", "write", "list", "delete", "patch")
_DIGITS = re.compile(r"[0-9]{1,18}")
_VERDICT = {True: "allowed", False: "denied"}


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to look at.

    Attributes:
        name: of the policy, written already or not.
        policy: what it shall say, as text or object.
        since: RFC 3339, or how long ago (``7d``).
        until: RFC 3339; now when absent.
        actor: how the ledger's name of whoever asked begins; anybody when empty.
        attach: take it as bound to everybody who is looked at, not only to those who have it.
        after: where the page before ended.
    """

    name: str
    policy: str | dict[str, Any]
    since: str | int = "1d"
    until: str | None = None
    actor: str = ""
    attach: bool = False
    after: str = ""


def replay_operations() -> tuple[Operation, ...]:
    """Return the operation that replays."""
    return (
        Operation(
            name="sys.policies.replay",
            method="write",
            pattern="policies/replay",
            handler=replay,
            response=ReplayAnswer,
            capability="update",
            sudo=True,
            request=ReplayRequest,
            strict=True,
            plain=frozenset({"name", "policy", "since", "until", "actor", "attach", "after"}),
            summary="Tell which past requests a proposed policy would decide in another way.",
        ),
    )


async def replay(context: Context, body: ReplayRequest) -> Answer:
    """Answer what would change, a page at a time; ``next`` is where the page after this begins."""
    core = context.core
    name = check_policy_name(body.name)
    proposed = parse_policy(name, body.policy)
    until = _instant(body.until, "until") if body.until is not None else context.now
    if not body.actor.isprintable():
        raise InvalidRequest("actor is the beginning of a name such as agent:6f1c0c1e-")
    after = _place(body.after) if body.after else Place(micros(_since(body.since, context.now)))
    async with core.database.read() as connection:
        gone = await pruned_until(connection)
    entries = await decided(core.database, after, micros(until), body.actor, _LOOKED_AT)
    judge = _Judge(core, proposed, attach=body.attach)
    changes: list[dict[str, Any]] = []
    undecided: dict[str, int] = {}
    looked_at = 0
    for entry in entries:
        looked_at += 1
        found = await judge.judge(entry)
        if isinstance(found, str):
            undecided[found] = undecided.get(found, 0) + 1
        elif found is not None:
            changes.append(_shown(entry, *found))
        if len(changes) >= _SHOWN:
            break
        if looked_at % _TURN == 0:
            await asyncio.sleep(0)
    more = looked_at < len(entries) or len(entries) == _LOOKED_AT
    last = entries[looked_at - 1] if looked_at else None
    return Answer(
        data={
            "changes": changes,
            "undecided": undecided,
            "looked_at": looked_at,
            "next": f"{last.at}.{last.stream}.{last.number}" if more and last is not None else "",
        },
        warnings=(f"requests until {format_rfc3339(from_micros(gone))} are in the ledger's archive",)
        if after.at < gone
        else (),
        detail={"looked_at": looked_at, "changes": len(changes)},
    )


class _Judge:
    """Decides requests of the past with and without the proposed policy."""

    def __init__(self, core: Core, proposed: ParsedPolicy, *, attach: bool) -> None:
        self._core = core
        self._proposed = proposed
        self._attach = attach
        self._actors = Actors(core)
        self._sets: dict[tuple[Any, ...], tuple[CompiledPolicies, CompiledPolicies] | str] = {}

    async def judge(self, entry: Entry) -> tuple[Decision, Decision] | str | None:
        """Return the two verdicts where they differ, why they cannot be told, or None where they agree.

        Raises:
            IntegrityFailure: a row that says what the actor has is not authentic.
        """
        actor = await self._actors.find(entry.actor)
        if isinstance(actor, str):
            return actor
        detail = msgspec.json.decode(entry.detail)
        application = await self._core.bindings.application(str(detail.get("application", "")))
        own = ROOT not in actor.policies and (self._attach or self._proposed.name in actor.policies)
        if not own and (application is None or self._proposed.name not in application.policies):
            return None
        sets = await self._policies(actor, application, own=own)
        if isinstance(sets, str):
            return sets
        unread: list[bool] = []

        def unknown_parameters() -> None:
            unread.append(True)

        parameters = unknown_parameters if {"body", "query"} & detail.keys() else dict
        verdicts: dict[tuple[int | None, bool], tuple[Decision, Decision]] = {}
        for life in actor.lives:
            when = Circumstances(
                now=from_micros(entry.at),
                client_address=entry.client or None,
                token_ttl=life,
                wrap_ttl=detail.get("wrap_ttl", 0),
                parameters=parameters,
            )
            for method, route in await self._ways(entry):
                exists = route.operation is not None and route.operation.exists is not None
                for creates in (False, True) if exists and method == "write" else (False,):
                    question = question_of(route, method, entry.path, when, creates=creates)
                    verdicts[life, creates] = (decide(question, sets[0]), decide(question, sets[1]))
        if unread:
            return "a rule asks about parameters, which the ledger keeps masked"
        return _agreed(verdicts)

    async def _ways(self, entry: Entry) -> list[tuple[Method, Route]]:
        """Return the ways on which a request can have been that operation at that path."""
        found: list[tuple[Method, Route]] = []
        for method in _METHODS:
            try:
                route = await self._core.mounts.route(method, entry.path)
            except (NotFound, IntegrityFailure):
                continue
            if route.operation is not None and route.operation.name == entry.operation:
                found.append((method, route))
        return found

    async def _policies(
        self, actor: Actor, application: Application | None, *, own: bool
    ) -> tuple[CompiledPolicies, CompiledPolicies] | str:
        """Return what decides today, and with the proposed policy; or why that cannot be told."""
        found = await self._set(actor, actor.policies, proposed=own)
        if application is None or isinstance(found, str):
            return found
        narrows = self._proposed.name in application.policies
        also = await self._set(actor, application.policies, proposed=narrows)
        if isinstance(also, str):
            return also
        before, after = found
        return before.narrowed(application.holder, also[0]), after.narrowed(application.holder, also[1])

    async def _set(
        self, actor: Actor, names: tuple[str, ...], *, proposed: bool
    ) -> tuple[CompiledPolicies, CompiledPolicies] | str:
        place = (names, proposed, tuple(sorted(actor.values.items())))
        if place not in self._sets:
            try:
                self._sets[place] = await self._compiled(actor, names, proposed=proposed)
            except InvalidRequest as exc:
                self._sets[place] = f"{exc}: whoever has it is refused everything"
        return self._sets[place]

    async def _compiled(
        self, actor: Actor, names: tuple[str, ...], *, proposed: bool
    ) -> tuple[CompiledPolicies, CompiledPolicies]:
        """Return what decides with these policies, and with the proposed one among them.

        Raises:
            InvalidRequest: one of them is not understood.
        """
        present = [policy for name in names if (policy := await self._core.policies.read(name)) is not None]
        others = [policy for policy in present if policy.name != self._proposed.name]
        changed = [*others, self._proposed] if proposed else present
        root = ROOT in names
        return (
            compile_policies(present, root=root, values=actor.values),
            compile_policies(changed, root=root, values=actor.values),
        )


def _agreed(
    verdicts: Mapping[tuple[int | None, bool], tuple[Decision, Decision]],
) -> tuple[Decision, Decision] | str | None:
    """Return the verdicts that hold in every case that may have been, or why there are none."""
    if not verdicts:
        return "nothing answers to that operation at that path any more"
    changing = [pair for pair in verdicts.values() if _differ(*pair)]
    if not changing:
        return None
    if len({(type(before), type(after)) for before, after in verdicts.values()}) == 1:
        return changing[0]
    if len({life for life, _ in verdicts}) > 1:
        return "the ledger does not hold how long the token was to live then"
    return "the ledger does not hold whether it was made or changed"


def _differ(before: Decision, after: Decision) -> bool:
    return isinstance(before, Allowed) != isinstance(after, Allowed)


def _shown(entry: Entry, before: Decision, after: Decision) -> dict[str, Any]:
    return {
        "stream": entry.stream,
        "number": entry.number,
        "time": format_rfc3339(from_micros(entry.at)),
        "request_id": entry.request_id,
        "actor": entry.actor,
        "operation": entry.operation,
        "path": entry.path,
        "outcome": entry.outcome,
        "before": _VERDICT[isinstance(before, Allowed)],
        "after": _VERDICT[isinstance(after, Allowed)],
        "reason": next(verdict.reason for verdict in (after, before) if isinstance(verdict, Denied)),
    }


def _since(given: str | int, now: datetime) -> datetime:
    if isinstance(given, str) and "T" in given:
        return _instant(given, "since")
    try:
        return now - timedelta(seconds=parse_duration(given))
    except OverflowError:
        raise InvalidRequest("since is before all time") from None


def _instant(given: str, name: str) -> datetime:
    instant = parse_rfc3339(given)
    if instant is None:
        raise InvalidRequest(f"{name} is an instant such as 2030-01-31T23:00:00Z")
    return instant


def _place(text: str) -> Place:
    at, _, rest = text.partition(".")
    stream, _, number = rest.rpartition(".")
    if _DIGITS.fullmatch(at) is None or _DIGITS.fullmatch(number) is None or not is_uuid(stream):
        raise InvalidRequest("after is what the page before gave as next")
    return Place(int(at), stream, int(number))
