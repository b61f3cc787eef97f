"""The notary on a real database: checkpoints, incarnations, standing in, tampering, and being killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import notary_steps
import pytest
from notary_steps import Founded, found
from offices import Office, opened, until
from socket_proxy import proxied

from actors.checkpointing import StandIn
from secrethub.audit.checkpoint import Signed, is_signed, link
from secrethub.audit.event import prune_detail
from secrethub.audit.witness import contradiction
from secrethub.errors import DecryptionFailed, IntegrityFailure, Stale, Unavailable
from secrethub.storage.checkpoints import beside
from secrethub.storage.database import Database
from secrethub.storage.ledger import Note
from secrethub.storage.sealed_stream import SealedStream


@pytest.fixture
async def cluster(database_url: str) -> AsyncIterator[Founded]:
    """A fresh cluster."""
    made = await found(database_url)
    yield made
    await made.database.close()


@pytest.fixture
async def office(database_url: str, cluster: Founded) -> AsyncIterator[Office]:
    """A process that writes entries."""
    async with opened(database_url, cluster.keyring) as one:
        yield one


def note(path: str = "p") -> Note:
    """An entry about a read of ``path``."""
    return Note(kind="request", request_id="", actor="a", operation="test.read", path=path, outcome="done")


async def test_checkpoints_cover_every_stream(cluster: Founded, office: Office, database_url: str) -> None:
    """A checkpoint names what moved since the last one, whoever wrote it, and nothing while nothing did."""
    work = await cluster.begin()
    await SealedStream(cluster.database, node="n").record("sys.test", "done", keyring=None)
    await office.ledger.append(note())
    first = await work.step()
    assert first is not None
    assert len(first.checkpoint.heads) == first.checkpoint.streams == 2
    assert await work.step() is None
    async with opened(database_url, cluster.keyring) as other:
        await other.ledger.append(note())
        second = await work.step()
    assert second is not None
    assert (len(second.checkpoint.heads), second.checkpoint.streams) == (1, 3)
    assert second.checkpoint.previous == link(first)
    row = await cluster.row()
    assert all(is_signed(signed, row.notary_public) for signed in await cluster.checkpoints())
    await work.step()
    report = await cluster.verdict()
    # SealState adopts what was written without a key; here there is none.
    assert [one.reason for one in report.bad] == ["not adopted"]
    assert report.unproven == 0


async def test_a_successor_goes_on(cluster: Founded, office: Office) -> None:
    """A new incarnation continues the chain and the tree; the old one can make no checkpoint any more."""
    old = await cluster.begin()
    await office.ledger.append(note())
    await old.step()
    new = await cluster.begin()
    await office.ledger.append(note())
    with pytest.raises(Stale):
        await old.step()
    signed = await new.step()
    assert signed is not None
    assert (signed.checkpoint.sequence, signed.checkpoint.streams) == (2, 1)
    assert (await cluster.verdict()).ok


async def test_standing_in(cluster: Founded, office: Office) -> None:
    """Where entries wait in vain a key-holder makes the checkpoints, until the notary is back."""
    row = await cluster.row()
    stand_in = StandIn(cluster.database, patience=0.0)
    await stand_in.step(cluster.root, row)
    assert not stand_in.active
    await office.ledger.append(note())
    await stand_in.step(cluster.root, row)
    assert stand_in.active
    assert len(await cluster.checkpoints()) == 1
    back = await cluster.begin()
    await office.ledger.append(note())
    await stand_in.step(cluster.root, row)
    assert not stand_in.active
    assert await back.step() is not None
    assert (await cluster.verdict()).ok


async def test_nobody_stands_in_for_a_notary_that_works(cluster: Founded, office: Office) -> None:
    """Entries that wait for less than the patience, or for ever newer checkpoints, are the notary's."""
    row, work = await cluster.row(), await cluster.begin()
    stand_in = StandIn(cluster.database, patience=0.05)
    for _ in range(5):
        await office.ledger.append(note())
        await stand_in.step(cluster.root, row)
        await asyncio.sleep(0.03)
        await work.step()
    assert not stand_in.active


async def test_nobody_stands_in_for_what_cannot_be_signed(cluster: Founded, office: Office) -> None:
    """A head that no entry has waits for ever: the notary is not put out of its office over that."""
    row, work = await cluster.row(), await cluster.begin()
    await office.ledger.append(note())
    await work.step()
    await office.sql("UPDATE audit_streams SET hash = sha256('x')")
    stand_in = StandIn(cluster.database, patience=0.0)
    await stand_in.step(cluster.root, row)
    assert not stand_in.active
    await SealedStream(cluster.database, node="n").record("sys.test", "done", keyring=cluster.keyring)
    assert await work.step() is not None
    await SealedStream(cluster.database, node="n").record("sys.test", "done", keyring=cluster.keyring)
    await stand_in.step(cluster.root, row)
    assert stand_in.active


async def test_kept_streams_that_were_tampered_with(cluster: Founded, office: Office) -> None:
    """What is kept beside the newest checkpoint is made again from all of them when it is not right."""
    work = await cluster.begin()
    await office.ledger.append(note())
    await work.step()
    await office.sql("UPDATE notarised_streams SET hash = sha256('x')")
    again = await cluster.begin()
    await office.ledger.append(note())
    signed = await again.step()
    assert signed is not None
    assert signed.checkpoint.streams == 1
    assert (await cluster.verdict()).ok


async def test_what_is_kept_beside_no_checkpoint(cluster: Founded, office: Office) -> None:
    """Where all checkpoints were removed the next first one names all streams, whatever was kept of them."""
    work = await cluster.begin()
    await office.ledger.append(note())
    await work.step()
    await office.sql("DELETE FROM audit_checkpoints")
    await office.sql("INSERT INTO notarised_streams VALUES ('forged', 1, 1, sha256('x'))")
    signed = await (await cluster.begin()).step()
    assert signed is not None
    assert signed.checkpoint.sequence == signed.checkpoint.streams == len(signed.checkpoint.heads) == 1
    assert (await cluster.verdict()).ok


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_checkpoints SET at = at + 1",
        "UPDATE audit_checkpoints SET signature = sha512('x')",
        "UPDATE cluster SET notary_public = sha256('x')",
    ],
)
async def test_nothing_is_signed_upon_what_was_tampered_with(
    cluster: Founded, office: Office, statement: str
) -> None:
    """A notary whose newest checkpoint, or own key, is not what it was makes none."""
    work = await cluster.begin()
    await office.ledger.append(note())
    await work.step()
    await office.sql(statement)
    with pytest.raises((IntegrityFailure, DecryptionFailed)):
        await cluster.begin()
    assert len(await cluster.checkpoints()) == 1


async def test_a_notary_sees_that_its_checkpoint_is_gone(cluster: Founded, office: Office) -> None:
    """A database in which the last checkpoint is missing gets no other from the notary that made it."""
    work = await cluster.begin()
    await office.ledger.append(note())
    await work.step()
    await office.sql("DELETE FROM audit_checkpoints")
    await office.ledger.append(note())
    with pytest.raises(IntegrityFailure):
        await work.step()


async def test_what_is_no_entry_is_not_signed(cluster: Founded, office: Office) -> None:
    """A head that no entry has, or that goes back, gets no signature; other streams do."""
    work = await cluster.begin()
    await office.ledger.append(note())
    await work.step()
    await office.sql("UPDATE audit_streams SET hash = sha256('x')")
    assert await work.step() is None
    await office.sql("INSERT INTO audit_streams VALUES ('made-up', 9, sha256('x'), sha256('y'))")
    await SealedStream(cluster.database, node="n").record("sys.test", "done", keyring=cluster.keyring)
    signed = await work.step()
    assert signed is not None
    assert len(signed.checkpoint.heads) == 1


async def test_the_database_goes_away(cluster: Founded, office: Office, database_url: str) -> None:
    """A commit whose answer is lost is found by the next incarnation, and nothing is signed twice."""
    async with proxied(database_url) as (proxy, through):
        away = Founded(Database(through, size=3), cluster.root, cluster.keyring)
        work = await away.begin()
        for round_ in range(6):
            await office.ledger.append(note())
            proxy.hold()
            step = asyncio.create_task(work.step())
            await asyncio.sleep(0.02 * round_)
            proxy.cut()
            try:
                await step
            except Unavailable:
                work = await away.begin()
        await work.step()
        await away.database.close()
    report = await cluster.verdict()
    assert report.ok, report
    assert report.unproven == 0


async def test_killed_notaries(cluster: Founded, office: Office, database_url: str) -> None:
    """Notaries killed at any moment while entries are written leave a ledger that verifies."""
    writing = asyncio.create_task(_write(office))
    try:
        for _ in range(6):
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                notary_steps.__file__,
                database_url,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[2],
                env={"PYTHONPATH": str(Path(__file__).parents[2])},
            )
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(cluster.root.reveal())
            child.stdin.close()
            assert await child.stdout.readline() == b"ready\n"
            before = len(await cluster.checkpoints())
            await until(lambda before=before: _more(cluster, before))
            await asyncio.sleep(random.random() / 20)
            child.kill()
            await child.wait()
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
    work = await cluster.begin()
    await work.step()
    report = await cluster.verdict()
    assert report.ok, report
    assert report.checkpoints >= 6
    assert report.unproven == 0


async def _write(office: Office) -> None:
    while True:
        await office.ledger.append(note())


async def _more(cluster: Founded, before: int) -> bool:
    return len(await cluster.checkpoints()) > before


async def test_checkpoints_of_what_was_archived_go(cluster: Founded, office: Office) -> None:
    """A signed base stands for them: everything verifies as before, for old and new incarnations."""
    work = await cluster.begin()
    for _ in range(4):
        await office.ledger.append(note())
        await work.step()
    assert await work.prune() == 0
    first, second, *_ = await cluster.checkpoints()
    (head,) = second.checkpoint.heads
    await office.ledger.append(msgspec.structs.replace(note(), kind="prune", detail=prune_detail([head], {})))
    await office.sql("INSERT INTO audit_pruned VALUES ($1, $2, $3)", *msgspec.structs.astuple(head))
    await office.sql("DELETE FROM audit_entries WHERE number <= $1", head.number)
    assert await work.prune() == 2
    assert await work.prune() == 0
    report = await cluster.verdict()
    assert report.ok, report
    assert report.checkpoints == 2
    assert (await work.step()) is not None
    # One whose kept leaves are another one's reads the checkpoints again, from the base on.
    await office.sql("DELETE FROM notarised_streams")
    new = await cluster.begin()
    await office.ledger.append(note())
    signed = await new.step()
    assert signed is not None
    assert signed.checkpoint.sequence == 6
    assert (await cluster.verdict()).ok
    with pytest.raises(Stale):
        await work.prune()
    row = await cluster.row()
    async with cluster.database.read() as connection:
        for kept, found in ((first, None), (second, None), (signed, None), (_other(second), "forked")):
            place = await beside(connection, kept.checkpoint.sequence)
            assert contradiction(kept, row.notary_public, *place) == found
    # The newest is never pruned, so somebody has removed it: nothing is signed upon the base alone.
    await office.sql("DELETE FROM audit_checkpoints")
    with pytest.raises(IntegrityFailure):
        await cluster.begin()


async def test_checkpoints_that_are_dated_ahead(cluster: Founded, office: Office, database_url: str) -> None:
    """Those of a time in which the database's clock was years ahead go with what was archived then."""

    async def made(one: Founded, count: int) -> None:
        work = await one.begin()
        for _ in range(count):
            await office.ledger.append(note())
            assert await work.step() is not None

    await made(cluster, 1)
    await office.sql(
        """CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
           $$ SELECT pg_catalog.clock_timestamp() + interval '30 years' $$"""
    )
    (row,) = await office.sql("SELECT current_database() AS name")
    await office.sql(f'ALTER DATABASE "{row["name"]}" SET search_path = public, pg_catalog')
    ahead = Founded(Database(database_url, size=2), cluster.root, cluster.keyring)
    await made(ahead, 3)
    await ahead.database.close()
    await office.sql("DROP FUNCTION clock_timestamp()")
    await made(cluster, 3)
    all_ = [signed.checkpoint for signed in await cluster.checkpoints()]
    assert all(one.at > all_[-1].at + 10**14 for one in all_[1:4])
    (head,) = all_[4].heads
    await office.ledger.append(msgspec.structs.replace(note(), kind="prune", detail=prune_detail([head], {})))
    await office.sql("INSERT INTO audit_pruned VALUES ($1, $2, $3)", *msgspec.structs.astuple(head))
    # While entries of that time are there, so are their checkpoints: nothing tells how old they are.
    await office.sql("DELETE FROM audit_entries WHERE number <= $1", all_[1].heads[0].number)
    work = await cluster.begin()
    assert [await work.prune(2) for _ in range(2)] == [1, 0]
    await office.sql("DELETE FROM audit_entries WHERE number <= $1", head.number)
    assert [await work.prune(2) for _ in range(3)] == [2, 2, 0]
    assert [signed.checkpoint.sequence for signed in await cluster.checkpoints()] == [6, 7]
    assert await work.step() is not None
    report = await cluster.verdict()
    assert report.ok, report


def _other(signed: Signed) -> Signed:
    return Signed(msgspec.structs.replace(signed.checkpoint, at=0), signed.signature)
