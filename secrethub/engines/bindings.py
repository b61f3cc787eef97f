"""Policies bound to somebody beside those that he has: to a token, a role of a login, a user, an agent.

What is bound to an application gives nothing by itself: it narrows what an agent is given that asks on its
behalf. An application is a name; no row is its own.

A binding is a row of authority, one a subject, looked up at each decision and never copied: not into
tokens, their children or certificates. What is bound to a role or user holds for everything that logged
in by it, a role's agents too. A subject's end removes its bindings, and a role or user made anew under an old
name is another.

Nearly nobody has a binding, and everybody is asked for one. So all of them are kept in memory
(``storage/authority_whole.py``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, TypeAlias

from secrethub.errors import IntegrityFailure
from secrethub.storage.authority import BINDINGS, Authority, Change
from secrethub.storage.authority_whole import WholeTable
from secrethub.storage.freshness import Caches

Kind: TypeAlias = Literal["token", "approle", "cert", "user", "agent", "application"]


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


class Application(NamedTuple):
    """An application and the names of the policies that are bound to it, sorted."""

    name: str
    policies: tuple[str, ...]

    @property
    def holder(self) -> str:
        """What a refusal by these policies says of whom they are."""
        return f"application {self.name}"


class BindingTable:
    """The bindings as this process knows them."""

    def __init__(self, authority: Authority, caches: Caches) -> None:
        self._rows = WholeTable(authority, caches, BINDINGS)

    def drop(self) -> None:
        """Forget every binding; whoever asks next reads them."""
        self._rows.drop()

    async def application(self, name: str) -> Application | None:
        """Return what is bound to an application now; None for an empty name.

        Raises:
            IntegrityFailure, Sealed, Unavailable: as :meth:`policies`.
        """
        if not name:
            return None
        bound = await self.policies(Subject("application", name))
        return Application(name, bound.beyond(()))

    async def policies(self, *subjects: Subject) -> Bound:
        """Return the names of the policies that are bound to any of the subjects.

        Raises:
            IntegrityFailure: a row, or its bucket, is not authentic.
            Sealed, Unavailable: they cannot be read.
        """
        names: set[str] = set()
        for subject in subjects:
            row = await self._rows.find(subject.key)
            if row is not None and row.body["incarnation"] == subject.incarnation:
                names.update(row.body["policies"])
        return Bound(names)


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
