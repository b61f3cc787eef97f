"""Random histories of authority rows, by two processes and a database writer, against a dictionary."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from offices import Office, founded, opened, sharing

from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.authority_rows import Table

T = TypeVar("T")

TABLE = Table("pki_roles", 64)
# Rows that meet in few buckets.
NAMES = st.sampled_from([*sharing(TABLE, "a", 4), *sharing(TABLE, "b", 3), "c", "d"])
NUMBERS = st.integers(0, 1000)
PROCESS = st.integers(0, 1)


@contextlib.asynccontextmanager
async def _two(url: str) -> AsyncIterator[tuple[Office, Office]]:
    keyring = await founded(url)
    async with opened(url, keyring) as one, opened(url, keyring) as two:
        yield one, two


class Histories(RuleBasedStateMachine):
    """What happens to rows, and what must be read after it."""

    offices: tuple[Office, Office]
    runner: asyncio.Runner

    @initialize()
    def begin(self) -> None:
        """Every history begins with an empty table."""
        self.empty()
        self.known: dict[str, int] = {}
        self.broken: set[int] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def refused(self, name: str) -> bool:
        return TABLE.bucket(name) in self.broken

    async def write(self, process: int, how: str, values: Mapping[str, int | None]) -> None:
        """Write in one transaction; None deletes. Taken again when it was overtaken."""
        office = self.offices[process]
        while True:
            await office.ledger.look()
            opening = office.authority.change if how == "change" else office.authority.issue
            with contextlib.suppress(Stale):
                async with opening(office.fence) as change:
                    for name in sorted(values, key=lambda n: TABLE.bucket(n)):
                        value = values[name]
                        if value is None:
                            await change.delete(TABLE, name)
                        else:
                            await change.put(TABLE, name, {"n": value})
                return

    @rule(
        process=PROCESS,
        how=st.sampled_from(["change", "issue"]),
        values=st.dictionaries(NAMES, st.none() | NUMBERS, max_size=4),
    )
    def writes(self, process: int, how: str, values: dict[str, int | None]) -> None:
        """One process writes; nothing of it stays if any bucket is not authentic."""
        try:
            self.run(self.write(process, how, values))
        except IntegrityFailure:
            assert any(self.refused(name) for name in values)
            return
        assert not any(self.refused(name) for name in values)
        self.remember(values)

    @rule(one=st.dictionaries(NAMES, NUMBERS, max_size=3), two=st.dictionaries(NAMES, NUMBERS, max_size=3))
    def write_at_once(self, one: dict[str, int], two: dict[str, int]) -> None:
        """Two processes write at the same time, one a change and one an issue, of different rows."""
        healthy = [{n: v for n, v in values.items() if not self.refused(n)} for values in (one, two)]
        second = {name: value for name, value in healthy[1].items() if name not in healthy[0]}

        async def both() -> None:
            await asyncio.gather(self.write(0, "change", healthy[0]), self.write(1, "issue", second))

        self.run(both())
        self.remember(healthy[0])
        self.remember(second)

    def remember(self, values: Mapping[str, int | None]) -> None:
        for name, value in values.items():
            if value is None:
                self.known.pop(name, None)
            else:
                self.known[name] = value

    @rule(process=PROCESS, name=NAMES)
    def reads(self, process: int, name: str) -> None:
        """Any process reads what was written last, or refuses; from memory also when the rows are broken."""
        try:
            body = self.run(self.offices[process].body(TABLE, name))
        except IntegrityFailure:
            assert self.refused(name)
            return
        wanted = self.known.get(name)
        if self.refused(name):
            # Only what this process has read before can still be told: nothing announced a change.
            assert wanted is not None
        assert body == (None if wanted is None else {"n": wanted})

    @rule()
    def reads_everything(self) -> None:
        """All rows are there, but those in buckets that are not authentic."""
        rows, broken = self.run(self.offices[0].authority.everything(TABLE))
        found = {row.key: row.body["n"] for row in rows}
        assert found == {n: v for n, v in self.known.items() if not self.refused(n)}
        assert self.broken <= set(broken)

    @rule(name=NAMES, how=st.sampled_from(["remove", "insert", "edit"]))
    def tampers(self, name: str, how: str) -> None:
        """A database writer removes a row, or writes one."""
        if self.refused(name):
            return
        sql = self.offices[0].sql
        if how == "remove":
            done = self.run(sql("DELETE FROM pki_roles WHERE key = $1 RETURNING key", name))
        elif how == "edit":
            done = self.run(sql("UPDATE pki_roles SET mac = '' WHERE key = $1 RETURNING key", name))
        else:
            done = self.run(
                sql(
                    """INSERT INTO pki_roles SELECT $1, revision, body, owner, expires_at, $2, mac
                       FROM pki_roles LIMIT 1 ON CONFLICT DO NOTHING RETURNING key""",
                    name,
                    TABLE.bucket(name),
                )
            )
        if done:
            self.broken.add(TABLE.bucket(name))

    def empty(self) -> None:
        """Empty the table, as if it never had been used."""
        self.run(self.offices[0].sql("DELETE FROM pki_roles"))
        self.run(self.offices[0].sql("DELETE FROM authority_buckets WHERE table_name = 'pki_roles'"))
        for office in self.offices:
            self.run(office.ledger.look())
            office.authority._floors.clear()


def test_any_history_reads_as_a_dictionary(database_url: str) -> None:
    """Whatever two processes write, together or in turn, is read; whatever others write is refused."""
    with asyncio.Runner() as runner:
        two = _two(database_url)
        offices = runner.run(two.__aenter__())
        try:

            class OnThisDatabase(Histories):
                pass

            OnThisDatabase.offices = offices
            OnThisDatabase.runner = runner
            run_state_machine_as_test(
                OnThisDatabase,
                settings=settings(
                    max_examples=50,
                    stateful_step_count=20,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(two.__aexit__(None, None, None))
