"""Rows of authority on a real database: what Core wrote is read, what others wrote is refused."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from offices import ROWS, Office, apart, founded, opened, sharing

from secrethub.crypto.keyring import Keyring
from secrethub.errors import Conflict, IntegrityFailure, Stale
from secrethub.storage.authority_rows import ACCESSORS, MODULUS, TOKENS, item
from secrethub.storage.freshness import Changed
from secrethub.storage.ledger import Note


@pytest.fixture
async def keyring(database_url: str) -> Keyring:
    """The keyring of a fresh cluster."""
    return await founded(database_url)


@pytest.fixture
async def office(database_url: str, keyring: Keyring) -> AsyncIterator[Office]:
    """One process of it."""
    async with opened(database_url, keyring) as one:
        yield one


@pytest.fixture
async def other(database_url: str, keyring: Keyring, office: Office) -> AsyncIterator[Office]:
    """Another process of it."""
    async with opened(database_url, keyring) as one:
        yield one


def _note() -> Note:
    return Note(kind="event", request_id="", actor="a", operation="test", path="", outcome="done")


async def _saved(office: Office, key: str) -> Any:
    return (await office.sql("SELECT * FROM pki_roles WHERE key = $1", key))[0]


async def _restore(office: Office, row: Any) -> None:
    await office.sql(
        """INSERT INTO pki_roles VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7)
           ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body,
               owner = excluded.owner, expires_at = excluded.expires_at, bucket = excluded.bucket,
               mac = excluded.mac""",
        *row.values(),
    )


async def _refused(office: Office, key: str, reason: str) -> None:
    """Check that neither a read nor a change takes what is there."""
    for again in range(2):
        with pytest.raises(IntegrityFailure, match=reason) as caught:
            await office.body(ROWS, key)
        assert (caught.value.table, caught.value.key) == ("pki_roles", key), again
    with pytest.raises(IntegrityFailure, match=reason):
        async with office.authority.change(office.fence) as change:
            await change.get(ROWS, key)
    with pytest.raises(IntegrityFailure, match=reason):
        async with office.authority.change(office.fence) as change:
            await change.delete(ROWS, key)


async def test_what_was_written_is_read(office: Office, other: Office) -> None:
    """A row comes back as it was written, in every process, with a revision that only grows."""
    until = datetime(2040, 1, 1, tzinfo=UTC) + timedelta(microseconds=7)
    body = {"n": 1, "t": "é\u2028", "deep": {"a": [1, None, True, {"b": "c"}]}}
    async with office.authority.change(office.fence) as change:
        first = await change.put(ROWS, "a", body, owner="somebody", expires_at=until)
    assert (await other.authority.get(ROWS, "a")) == first
    await office.put(ROWS, "a", {"n": 2})
    assert await other.body(ROWS, "a") == {"n": 2}
    again = await office.authority.get(ROWS, "a")
    assert again is not None
    assert again.revision > first.revision
    assert again.owner is None
    assert await office.delete(ROWS, "a")
    assert not await office.delete(ROWS, "a")
    assert await other.body(ROWS, "a") is None
    await office.put(ROWS, "a", {"n": 3})
    made_again = await office.authority.get(ROWS, "a")
    assert made_again is not None
    assert made_again.revision > again.revision


async def test_expected_revisions(office: Office) -> None:
    """A write on another revision than expected is a conflict and changes nothing."""
    await office.put(ROWS, "a", {"n": 1})
    row = await office.authority.get(ROWS, "a")
    assert row is not None
    for expected in (0, row.revision + 1):
        with pytest.raises(Conflict):
            async with office.authority.change(office.fence) as change:
                await change.put(ROWS, "a", {"n": 2}, expected_revision=expected)
    assert await office.body(ROWS, "a") == {"n": 1}
    async with office.authority.change(office.fence) as change:
        await change.put(ROWS, "a", {"n": 2}, expected_revision=row.revision)
    assert await office.body(ROWS, "a") == {"n": 2}


@pytest.mark.parametrize(
    "edit",
    [
        "body = '{\"n\": 2}'",
        "owner = 'me'",
        "expires_at = now()",
    ],
)
async def test_an_edited_row_is_refused(office: Office, edit: str) -> None:
    """A row of which a column was edited is refused, and so are changes that build on it."""
    await office.put(ROWS, "a", {"n": 1})
    await office.sql(f"UPDATE pki_roles SET {edit} WHERE key = 'a'")
    await _refused(office, "a", "the row was edited")


@pytest.mark.parametrize("edit", ["revision = 7", "bucket = 63 - bucket", "mac = '\\x00'::bytea"])
async def test_what_ties_a_row_to_its_bucket_cannot_be_edited(office: Office, edit: str) -> None:
    """A row with another revision, bucket or authentication is refused."""
    await office.put(ROWS, "a", {"n": 1})
    await office.sql(f"UPDATE pki_roles SET {edit} WHERE key = 'a'")
    await _refused(office, "a", "inserted, removed or put back")


async def test_an_inserted_row_is_refused(office: Office) -> None:
    """A row that was copied under another name is refused; rows in other buckets go on."""
    await office.put(ROWS, "a", {"n": 1})
    far = apart(ROWS, "a")
    await office.put(ROWS, far, {"n": 2})
    near = sharing(ROWS, "a", 2)[1]
    await office.sql(
        "INSERT INTO pki_roles SELECT $1, revision, body, owner, expires_at, bucket, mac FROM pki_roles"
        " WHERE key = 'a'",
        near,
    )
    await _refused(office, near, "inserted, removed or put back")
    assert await office.body(ROWS, far) == {"n": 2}


async def test_a_row_in_an_empty_bucket_is_refused(office: Office) -> None:
    """A row in a bucket that Core never used is refused."""
    await office.put(ROWS, "a", {"n": 1})
    far = apart(ROWS, "a")
    await office.sql(
        "INSERT INTO pki_roles SELECT $1, revision, body, owner, expires_at, $2, mac FROM pki_roles"
        " WHERE key = 'a'",
        far,
        ROWS.bucket(far),
    )
    await _refused(office, far, "its bucket is missing")


async def test_a_removed_row_is_missed(office: Office) -> None:
    """That a row was deleted by hand is noticed by whoever looks for it, and by its neighbours."""
    first, second = sharing(ROWS, "a", 2)
    await office.put(ROWS, first, {"n": 1})
    await office.put(ROWS, second, {"n": 2})
    await office.sql("DELETE FROM pki_roles WHERE key = $1", first)
    await _refused(office, first, "inserted, removed or put back")
    await _refused(office, second, "inserted, removed or put back")


async def test_a_former_row_is_refused(office: Office) -> None:
    """A former version of a row with its authentication, and a deleted one, are refused when put back."""
    await office.put(ROWS, "a", {"wide": True})
    former = await _saved(office, "a")
    await office.put(ROWS, "a", {"wide": False})
    await _restore(office, former)
    await _refused(office, "a", "inserted, removed or put back")
    far = apart(ROWS, "a")
    await office.put(ROWS, far, {"n": 1})
    deleted = await _saved(office, far)
    await office.delete(ROWS, far)
    await _restore(office, deleted)
    await _refused(office, far, "inserted, removed or put back")


async def test_a_former_bucket_is_refused(office: Office, other: Office) -> None:
    """A whole former bucket, put back with its rows, is refused by every process that lives."""
    await office.put(ROWS, "a", {"wide": True})
    rows = await _saved(office, "a")
    bucket = await office.sql(
        "SELECT * FROM authority_buckets WHERE table_name = 'pki_roles' AND bucket = $1", ROWS.bucket("a")
    )
    await office.put(ROWS, "a", {"wide": False})
    assert await other.body(ROWS, "a") == {"wide": False}
    await office.sql(
        "UPDATE authority_buckets SET revision = $3, digest = $4, mac = $5"
        " WHERE table_name = $1 AND bucket = $2",
        *bucket[0].values(),
    )
    await _restore(office, rows)
    await _refused(office, "a", "an older state was put back")
    await _refused(other, "a", "an older state was put back")


async def test_a_bucket_that_was_removed_is_missed(office: Office) -> None:
    """Rows removed together with their bucket are missed, and the bucket is not made anew."""
    await office.put(ROWS, "a", {"deny": True})
    await office.sql("DELETE FROM pki_roles WHERE key = 'a'")
    await office.sql(
        "DELETE FROM authority_buckets WHERE table_name = 'pki_roles' AND bucket = $1", ROWS.bucket("a")
    )
    await _refused(office, "a", "its bucket is missing")
    with pytest.raises(IntegrityFailure, match="its bucket is missing"):
        async with office.authority.change(office.fence) as change:
            await change.put(ROWS, "a", {"n": 1})


async def test_a_bucket_edited_before_a_process_starts_stays_refused(
    database_url: str, keyring: Keyring, office: Office
) -> None:
    """A bucket that is not authentic when a process learns of all is refused, whatever is put there."""
    await office.put(ROWS, "a", {"wide": True})
    await office.put(ROWS, apart(ROWS, "a"), {"n": 1})
    bucket = await office.sql(
        "SELECT * FROM authority_buckets WHERE table_name = 'pki_roles' AND bucket = $1", ROWS.bucket("a")
    )
    where = "WHERE table_name = 'pki_roles' AND bucket = $1"
    await office.sql(f"UPDATE authority_buckets SET revision = 99 {where}", ROWS.bucket("a"))
    async with opened(database_url, keyring) as late:
        with pytest.raises(IntegrityFailure, match="authentication of bucket"):
            await late.body(ROWS, "a")
        assert await late.body(ROWS, apart(ROWS, "a")) == {"n": 1}
        await office.sql(f"DELETE FROM authority_buckets {where}", ROWS.bucket("a"))
        await office.sql("INSERT INTO authority_buckets VALUES ($1, $2, $3, $4, $5)", *bucket[0].values())
        with pytest.raises(IntegrityFailure, match="an older state"):
            await late.body(ROWS, "a")
    # Another process, which saw it whole, goes on once it is whole again.
    assert await office.body(ROWS, "a") == {"wide": True}


async def test_writing_an_edited_row_anew_repairs_it(office: Office) -> None:
    """An operator who writes a row again overwrites what somebody edited."""
    await office.put(ROWS, "a", {"n": 1})
    await office.sql("UPDATE pki_roles SET body = '{}' WHERE key = 'a'")
    with pytest.raises(IntegrityFailure):
        await office.body(ROWS, "a")
    await office.put(ROWS, "a", {"n": 2})
    assert await office.body(ROWS, "a") == {"n": 2}


async def test_many_rows_are_deleted_at_once(office: Office, other: Office) -> None:
    """Deleting many rows leaves sums right and spares rows in buckets that are not authentic."""
    names = [f"row-{n}" for n in range(200)]
    async with office.authority.issue(office.fence) as change:
        for name in names:
            await change.put(ROWS, name, {"n": name})
    broken = ROWS.bucket("row-0")
    await office.sql("UPDATE pki_roles SET mac = '\\x00'::bytea WHERE key = 'row-0'")
    async with office.authority.issue(office.fence) as change:
        gone, failures = await change.delete_many(ROWS, [*names[:150], "never-there"])
    spared = [name for name in names[:150] if ROWS.bucket(name) == broken]
    assert {row.key for row in gone} == set(names[:150]) - set(spared)
    assert all(row.body == {"n": row.key} for row in gone)
    assert [failure.reason for failure in failures] == ["a row was inserted, removed or put back"]
    for name in names:
        if ROWS.bucket(name) != broken:
            assert await other.body(ROWS, name) == (None if name in names[:150] else {"n": name})


async def test_everything_of_a_table(office: Office) -> None:
    """All rows are returned but those of broken buckets, which are named; a missing row breaks its own."""
    names = [f"row-{n}" for n in range(40)]
    for name in names:
        await office.put(ROWS, name, {"n": name})
    rows, broken = await office.authority.everything(ROWS)
    assert {row.key for row in rows} >= set(names)
    assert broken == {}
    await office.sql("DELETE FROM pki_roles WHERE key = 'row-3'")
    await office.sql("UPDATE pki_roles SET body = '{}' WHERE key = 'row-4'")
    rows, broken = await office.authority.everything(ROWS)
    lost = {ROWS.bucket("row-3"), ROWS.bucket("row-4")}
    assert set(broken) == lost
    assert {row.key for row in rows if row.key in names} == {n for n in names if ROWS.bucket(n) not in lost}


async def test_sums_do_not_depend_on_the_order(office: Office, keyring: Keyring) -> None:
    """After any history a bucket's sum is that of the rows in it, and nothing when it is empty."""
    random.seed(7)
    names = sharing(ROWS, "a", 5)
    for _ in range(40):
        name = random.choice(names)
        if random.random() < 0.6:
            await office.put(ROWS, name, {"n": random.random()})
        else:
            await office.delete(ROWS, name)
    for name in names[1:]:
        await office.delete(ROWS, name)
    await office.put(ROWS, "a", {"n": 1})
    secret = keyring.derived("authority")
    row = await _saved(office, "a")
    wanted = item(secret, "pki_roles", "a", row["revision"], row["mac"]) % MODULUS
    digest = "SELECT digest FROM authority_buckets WHERE table_name = 'pki_roles' AND bucket = $1"
    assert (await office.sql(digest, ROWS.bucket("a")))[0]["digest"] == wanted.to_bytes(32, "big")
    await office.delete(ROWS, "a")
    assert (await office.sql(digest, ROWS.bucket("a")))[0]["digest"] == bytes(32)


async def test_an_old_decision_changes_nothing(office: Office, other: Office) -> None:
    """A change or issue on a fence that was overtaken is stale, and nothing of it stays."""
    old = office.fence
    await other.put(ROWS, "a", {"n": 1})
    for opened_by in (office.authority.change, office.authority.issue):
        with pytest.raises(Stale):
            async with opened_by(old) as change:
                await change.put(ROWS, "b", {"n": 1})
    assert await office.body(ROWS, "b") is None


async def test_changes_with_few_connections(database_url: str, keyring: Keyring) -> None:
    """Many changes at once need no more than two connections, also those that wait for their turn."""
    async with opened(database_url, keyring, size=2) as one, opened(database_url, keyring, size=2) as two:

        async def change(office: Office, name: str) -> None:
            with contextlib.suppress(Stale):
                async with office.authority.change(office.fence) as first:
                    await first.put(ROWS, name, {"n": name})
                return
            async with office.authority.turns.turn():
                await office.ledger.look()
                async with office.authority.change(
                    msgspec.structs.replace(office.fence, in_turn=True)
                ) as mine:
                    await mine.put(ROWS, name, {"n": name})

        names = [f"row-{n}" for n in range(30)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(change((one, two)[n % 2], name) for n, name in enumerate(names)))
        for name in names:
            assert await one.body(ROWS, name) == {"n": name}


async def test_a_failed_change_leaves_nothing(office: Office) -> None:
    """An error inside a change takes back every write of it, and the generation stays."""
    before = office.caches.generation

    async def failing() -> None:
        async with office.authority.change(office.fence) as change:
            await change.put(ROWS, "a", {"n": 1})
            await change.put(ROWS, "a", {"n": 2}, expected_revision=0)

    with pytest.raises(Conflict):
        await failing()
    assert await office.body(ROWS, "a") is None
    assert office.caches.generation == before


async def test_announcements_that_were_removed_are_missed(office: Office, other: Office) -> None:
    """A process whose announcements somebody deleted drops what it keeps, rather than go on with it."""
    await office.put(ROWS, "a", {"n": 1})
    assert await other.body(ROWS, "a") == {"n": 1}
    async with office.authority.change(office.fence) as change:
        await change.put(ROWS, "a", {"n": 2})
    await office.sql("DELETE FROM changes")
    assert await other.body(ROWS, "a") == {"n": 2}


async def test_a_cluster_that_is_gone(office: Office) -> None:
    """Without the cluster's row nothing is known to be fresh, so nothing is written down or answered."""
    held = await office.sql("DELETE FROM cluster RETURNING *")
    with pytest.raises(IntegrityFailure, match="the row is gone"):
        await office.ledger.look()
    with pytest.raises(IntegrityFailure, match="the row is gone"):
        await office.ledger.append(_note())
    marks = ", ".join(f"${n}" for n in range(1, len(held[0]) + 1))
    await office.sql(f"INSERT INTO cluster VALUES ({marks})", *held[0].values())
    await office.ledger.append(_note())


async def test_a_generation_set_back(office: Office, other: Office) -> None:
    """Whoever made a change, or heard of it, takes no older state for the present any more."""
    async with office.authority.change(office.fence) as change:
        await change.put(ROWS, "a", {"n": 1})
    await office.sql("UPDATE cluster SET generation = generation - 1")
    await office.sql("DELETE FROM changes")
    with pytest.raises(IntegrityFailure, match="older than this process"):
        await office.ledger.append(_note())
    await office.sql("UPDATE cluster SET generation = generation + 1")
    await office.ledger.append(_note())
    await other.ledger.look()
    await office.sql("UPDATE cluster SET generation = generation - 1")
    with pytest.raises(IntegrityFailure, match="older than this process"):
        await other.ledger.look()


async def test_an_answer_overtaken_by_a_change_of_ours_is_no_alarm(office: Office) -> None:
    """What the database said before a change of this process is no alarm, though it comes late."""
    least = office.caches.expected
    async with office.database.read() as connection:
        late = await connection.fetch("SELECT * FROM freshness($1)", office.caches.cursor)
    async with office.authority.change(office.fence) as change:
        await change.put(ROWS, "a", {"n": 1})
    office.caches.apply(late, least=least)
    assert await office.body(ROWS, "a") == {"n": 1}


async def test_a_database_that_does_not_count(office: Office) -> None:
    """A change that the database would not announce by a new generation is not made."""
    await office.sql(
        """CREATE FUNCTION still() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.generation := OLD.generation; RETURN NEW; END $$"""
    )
    await office.sql("CREATE TRIGGER still BEFORE UPDATE ON cluster FOR EACH ROW EXECUTE FUNCTION still()")
    with pytest.raises(IntegrityFailure, match="does not count"):
        await office.put(ROWS, "a", {"n": 1})
    assert await office.body(ROWS, "a") is None


async def test_floors_are_learned_again_after_a_gap(office: Office, other: Office) -> None:
    """A process that missed announcements still takes no state older than what it found afterwards."""
    await office.put(ROWS, "a", {"n": 1})
    assert await other.body(ROWS, "a") == {"n": 1}
    await office.put(ROWS, "a", {"n": 2})
    row = await _saved(office, "a")
    bucket = await office.sql(
        "SELECT * FROM authority_buckets WHERE table_name = 'pki_roles' AND bucket = $1", ROWS.bucket("a")
    )
    await office.put(ROWS, "a", {"n": 3})
    # What would have told the other process is not there any more.
    await office.sql("DELETE FROM changes")
    await office.sql("UPDATE cluster SET changes_pruned_below = 1000000000")
    assert await other.body(ROWS, apart(ROWS, "a")) is None
    await office.sql("ALTER TABLE pki_roles DISABLE TRIGGER pki_roles_announce")
    await _restore(office, row)
    await office.sql(
        "UPDATE authority_buckets SET revision = $3, digest = $4, mac = $5"
        " WHERE table_name = $1 AND bucket = $2",
        *bucket[0].values(),
    )
    with pytest.raises(IntegrityFailure, match="an older state was put back"):
        await other.body(ROWS, "a")


async def test_a_long_transaction_elsewhere_costs_nobody_anything(office: Office) -> None:
    """While a transaction stays open, each change is told once, and caches are not dropped for it."""
    told: list[Changed] = []
    office.caches.subscribe(told.append)
    flushes: list[int] = []
    office.caches.on_flush(lambda: flushes.append(1))
    await office.ledger.look()
    stranger = await asyncpg.connect(office.url)
    try:
        transaction = stranger.transaction()
        await transaction.start()
        await stranger.execute("INSERT INTO changes (kind, key, version) VALUES ('kv', 'late', 1)")
        insert = """INSERT INTO changes (kind, key, version)
                    SELECT 'kv', 'n' || n, 1 FROM generate_series(1, 5000) AS n"""
        for _ in range(6):
            await office.sql(insert)
            position = office.caches.position
            await office.ledger.look()
            assert office.caches.position == position + 5000
            await office.ledger.look()
            assert office.caches.position == position + 5000
        assert "late" not in {change.key for change in told}
        await transaction.commit()
    finally:
        await stranger.close()
    await office.ledger.look()
    assert [change.key for change in told].count("late") == 1
    assert len(told) == 30_001
    assert flushes == []


async def test_a_subscriber_that_fails_hinders_nobody(office: Office) -> None:
    """What one listener raises neither ends the look nor keeps the others from hearing."""
    told: list[Changed] = []

    def failing(_change: Changed) -> None:
        raise ValueError("a defect")

    office.caches.subscribe(failing)
    office.caches.subscribe(told.append)
    await office.put(ROWS, "a", {"n": 1})
    assert [change.key for change in told] == ["pki_roles/a"]


async def test_reads_amid_issues_raise_no_false_alarm(office: Office, other: Office) -> None:
    """Rows read while others are issued into the same bucket, by two processes, are never refused."""
    names = sharing(TOKENS, "t", 40)

    async def issue(one: Office, mine: list[str]) -> None:
        for name in mine:
            async with one.authority.issue(one.fence) as change:
                await change.put(TOKENS, name, {"n": name})
            await one.ledger.look()

    async def read(one: Office) -> None:
        for _ in range(60):
            for name in names[:3]:
                await one.authority.fetch(TOKENS, name)
                async with one.database.read() as connection:
                    await one.authority.fetch(TOKENS, name, connection)
            await one.ledger.look()

    await asyncio.gather(
        issue(office, names[::2]), issue(other, names[1::2]), read(office), read(other), read(other)
    )
    for name in names:
        assert await office.body(TOKENS, name) == {"n": name}


async def test_issues_never_wait_in_a_circle(office: Office, other: Office) -> None:
    """Issues that touch tables in order, and bulk deletions, run side by side without a deadlock."""
    names = [*sharing(TOKENS, "t", 4), *sharing(TOKENS, "u", 4)]
    accessors = [*sharing(ACCESSORS, "x", 4), *sharing(ACCESSORS, "y", 4)]
    failures: list[BaseException] = []

    async def issue(one: Office, seed: int) -> None:
        chooser = random.Random(seed)
        for _ in range(25):
            token, accessor = chooser.choice(names), chooser.choice(accessors)
            try:
                async with one.authority.issue(one.fence) as change:
                    if chooser.random() < 0.5:
                        await change.get(TOKENS, token)
                    await change.put(TOKENS, token, {"n": seed})
                    await change.put(ACCESSORS, accessor, {"token": token})
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is reported below
                failures.append(exc)

    async def sweep(one: Office, seed: int) -> None:
        chooser = random.Random(seed)
        for _ in range(15):
            try:
                async with one.authority.issue(one.fence) as change:
                    await change.delete_many(TOKENS, chooser.sample(names, 4))
                    await change.delete_many(ACCESSORS, chooser.sample(accessors, 4))
            except Exception as exc:  # noqa: BLE001 - as above
                failures.append(exc)

    await asyncio.gather(
        *(issue(one, n) for n, one in enumerate((office, other) * 2)),
        *(sweep(one, n) for n, one in enumerate((office, other))),
    )
    assert failures == []
    for name in names:
        await office.body(TOKENS, name)
