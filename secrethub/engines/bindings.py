"""Policies bound to somebody beside those that he has: to a token, an AppRole role, a user, an agent.

A binding is a row of authority, one a subject, looked up at each decision and never copied: not into
tokens, their children or certificates. What is bound to a role or user holds for everything that logged
in by it, a role's agents too. A subject's end removes its bindings, and a role or user made anew under an old
name is another.

Nearly nobody has a binding, and everybody is asked for one. So all of them are kept in memory: read once,
and one by one again when a change is announced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, TypeAlias

from secrethub.errors import IntegrityFailure
from secrethub.storage.authority import BINDINGS, Authority, Change, Row
from secrethub.storage.freshness import Caches, Changed

Kind: TypeAlias = Literal["token", "approle", "user", "agent"]

_DOUBTFUL = 10_000
"""Announced rows after which all are read again at once."""


class Subject(NamedTuple):
    """Who has a binding.

    Attributes:
        kind: of subject.
        name: key of its own row.
        incarnation: which one of that name, where a name can be given again.
    """

    kind: Kind
    name: str
    incarnation: str = ""

    @property
    def key(self) -> str:
        """The key of the row with its bindings."""
        return f"{self.kind}/{self.name}"


class Bound(frozenset[str]):
    """Names of policies that are bound."""

    def beyond(self, own: Collection[str]) -> tuple[str, ...]:
        """Return those that are not among ``own``, sorted."""
        return tuple(sorted(self.difference(own)))


class BindingTable:
    """The bindings as this process knows them."""

    def __init__(self, authority: Authority, caches: Caches) -> None:
        self._authority = authority
        self._known: dict[str, Row] | None = None
        self._broken: Mapping[int, IntegrityFailure] = {}
        self._doubtful: dict[str, int] = {}
        """Keys that were announced since, or while, what is known was read; by which announcement last."""
        self._announcements = 0
        self._loading = asyncio.Lock()
        self._drops = 0
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        table, _, key = change.key.partition("/")
        if table == BINDINGS.name and change.kind in {"authority", "issued"}:
            self._announcements += 1
            self._doubtful[key] = self._announcements
            if len(self._doubtful) > _DOUBTFUL:
                self.drop()

    def drop(self) -> None:
        """Forget every binding; whoever asks next reads them."""
        self._known = None
        self._doubtful.clear()
        self._drops += 1

    async def policies(self, *subjects: Subject) -> Bound:
        """Return the names of the policies that are bound to any of the subjects.

        Raises:
            IntegrityFailure: a row, or its bucket, is not authentic.
            Sealed, Unavailable: they cannot be read.
        """
        names: set[str] = set()
        for subject in subjects:
            row = await self._find(subject.key)
            if row is not None and row.body["incarnation"] == subject.incarnation:
                names.update(row.body["policies"])
        return Bound(names)

    async def _find(self, key: str) -> Row | None:
        known = self._known if self._known is not None else await self._load()
        broken = bool(self._broken) and BINDINGS.bucket(key) in self._broken
        if not broken and key not in self._doubtful:
            return known.get(key)
        announced = self._doubtful.get(key)
        row = await self._authority.get(BINDINGS, key)
        # Unless it was announced again, what was read is as new as the announcement.
        if not broken and known is self._known and announced == self._doubtful.get(key):
            self._doubtful.pop(key, None)
            known.pop(key, None)
            if row is not None:
                known[key] = row
        return row

    async def _load(self) -> dict[str, Row]:
        async with self._loading:
            if self._known is not None:
                return self._known
            drops = self._drops
            self._doubtful.clear()  # what is announced from now on may not be seen by the statement
            rows, self._broken = await self._authority.everything(BINDINGS)
            known = {row.key: row for row in rows}
            if drops == self._drops:
                self._known = known
            return known


async def bind(change: Change, subject: Subject, policy: str, most: int) -> bool:
    """Bind a policy; tell whether there was room for it.

    Raises:
        IntegrityFailure: the row, or its bucket, is not authentic.
    """
    names = {*await _present(change, subject), policy}
    if len(names) > most:
        return False
    await _put(change, subject, names)
    return True


async def unbind(change: Change, subject: Subject, policy: str) -> None:
    """Take a policy away; that it is not bound is no error.

    Raises:
        IntegrityFailure: the row, or its bucket, is not authentic.
    """
    present = await _present(change, subject)
    if policy not in present:
        return
    if names := present - {policy}:
        await _put(change, subject, names)
    else:
        await change.delete(BINDINGS, subject.key)


async def end_bindings(change: Change, subjects: Collection[Subject]) -> list[IntegrityFailure]:
    """Remove what is bound to subjects that end; return what is wrong with rows that were left alone."""
    found = await change.connection.fetch(
        f"SELECT key FROM {BINDINGS.name} WHERE key = ANY($1::text[])",  # noqa: S608 - a constant of ours
        [subject.key for subject in subjects],
    )
    if not found:
        return []
    return (await change.delete_many(BINDINGS, [row["key"] for row in found]))[1]


async def _present(change: Change, subject: Subject) -> set[str]:
    row = await change.get(BINDINGS, subject.key)
    if row is None or row.body["incarnation"] != subject.incarnation:
        return set()
    return set(row.body["policies"])


async def _put(change: Change, subject: Subject, names: set[str]) -> None:
    body = {"policies": sorted(names), "incarnation": subject.incarnation}
    await change.put(BINDINGS, subject.key, body)
