"""Rows of secrets on a real database: versions, conditions, lists, and what a database writer did to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offices import ROWS, Office, founded, opened, until

from secrethub.errors import DecryptionFailed, IntegrityFailure
from secrethub.ids import new_uuid
from secrethub.storage import kv
from secrethub.storage.kv_writer import KvWriter, Result

STORE = "store-1"


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """One process of a fresh cluster."""
    async with opened(database_url, await founded(database_url)) as one:
        yield one


@pytest.fixture
async def other(office: Office) -> AsyncIterator[Office]:
    """Another process of it."""
    async with opened(office.url, office.keyring) as one:
        yield one


def first_head(path: str) -> kv.Head:
    """The head of a new secret."""
    return kv.Head(
        store=STORE,
        path=path,
        id=new_uuid(),
        revision=1,
        current_version=1,
        oldest_version=1,
        max_versions=0,
        cas_required=False,
        delete_version_after=0,
        custom_metadata="",
        created_at=1,
        updated_at=1,
        versions=(kv.State(created_at=1),),
    )


def next_head(head: kv.Head, keep: int = 10) -> kv.Head:
    """The head after one more version."""
    current = head.current_version + 1
    oldest = max(head.oldest_version, current - keep + 1)
    return replace(
        head,
        revision=head.revision + 1,
        current_version=current,
        oldest_version=oldest,
        versions=(*head.versions[oldest - head.oldest_version :], kv.State(created_at=1)),
    )


async def put(office: Office, writer: KvWriter, head: kv.Head, value: bytes) -> Result:
    """Write the version that ``head`` calls its newest."""
    sealed = office.keyring.seal(value, kv.value_place(head.id, head.current_version))
    return await writer.put(office.keyring, office.fence, head, sealed, f"secret/{head.path}")


async def load(office: Office, path: str, version: int | None = None) -> bytes | None:
    """Return a version's value."""
    async with office.database.read() as connection:
        found = await kv.load(connection, office.keyring, STORE, path, version)
    if found is None or found[1] is None or found[1].sealed is None:
        return None
    return office.keyring.open(found[1].sealed, kv.value_place(found[0].id, found[1].version))


async def written(office: Office, path: str, *values: bytes) -> kv.Head:
    """Write values one after the other and return the head."""
    writer, head = KvWriter(office.database), first_head(path)
    for number, value in enumerate(values):
        if number:
            head = next_head(head)
        assert await put(office, writer, head, value) == "done"
    return head


async def test_versions(office: Office) -> None:
    """Every version kept reads as it was written; older ones than are kept are gone."""
    await written(office, "a", *(b"%d" % n for n in range(1, 14)))
    assert await load(office, "a") == b"13"
    for version in range(4, 14):
        assert await load(office, "a", version) == b"%d" % version
    for version in (1, 3, 14):
        assert await load(office, "a", version) is None
    assert await load(office, "b") is None
    rows = await office.sql("SELECT count(*) AS n FROM kv_versions")
    assert rows[0]["n"] == 10


async def test_conditions(office: Office, other: Office) -> None:
    """A write on an old head is moved, one on an old decision is stale, and neither leaves a trace."""
    head = await written(office, "a", b"1", b"2")
    writer = KvWriter(office.database)
    assert await put(office, writer, head, b"again") == "moved"
    assert await put(office, writer, first_head("a"), b"new") == "moved"
    assert await put(office, writer, replace(next_head(head), id=new_uuid()), b"other id") == "moved"
    await other.put(ROWS, "x", {})
    assert await put(office, writer, next_head(head), b"3") == "stale"
    assert await load(office, "a") == b"2"
    assert (await office.sql("SELECT count(*) AS n FROM kv_versions"))[0]["n"] == 2
    await office.ledger.look()
    assert await put(office, writer, next_head(head), b"3") == "done"


async def test_writes_that_wait_share_a_transaction(office: Office) -> None:
    """Many concurrent writes take few transactions, and each has its own result."""
    writer = KvWriter(office.database)
    heads = [first_head(f"p{n}") for n in range(200)]
    doubles = [first_head(f"p{n}") for n in range(20)]
    results = await asyncio.gather(*(put(office, writer, h, h.path.encode()) for h in [*heads, *doubles]))
    assert results == ["done"] * 200 + ["moved"] * 20
    commits = await office.sql("SELECT count(DISTINCT xmin::text) AS n FROM kv_secrets")
    assert commits[0]["n"] <= 20
    for head in heads:
        assert await load(office, head.path) == head.path.encode()
    announced = await office.sql("SELECT key FROM changes WHERE kind = 'kv'")
    assert sorted(row["key"] for row in announced) == sorted(f"secret/p{n}" for n in range(200))


async def test_two_processes_that_write_the_same_paths(office: Office, other: Office) -> None:
    """Writers of overlapping sets of secrets never wait in a circle, and each path has one winner a round."""
    writers = {one.ledger: KvWriter(one.database) for one in (office, other)}
    paths = [f"p{n}" for n in range(30)]
    heads = {path: await written(office, path, b"0") for path in paths}
    for _ in range(10):
        order = [random.sample(paths, len(paths)) for _ in range(2)]
        results = await asyncio.gather(
            *(
                put(one, writers[one.ledger], next_head(heads[path]), path.encode())
                for one, mine in zip((office, other), order, strict=True)
                for path in mine
            )
        )
        assert results.count("done") == len(paths)
        assert results.count("moved") == len(paths)
        heads = {path: next_head(head) for path, head in heads.items()}
    for path in paths:
        assert await load(office, path) == path.encode()


_EDITS = [
    "UPDATE kv_secrets SET path = 'b' WHERE path = 'a'",
    "UPDATE kv_secrets SET store = 'other' WHERE path = 'a'",
    "UPDATE kv_secrets SET current_version = 1 WHERE path = 'a'",
    "UPDATE kv_secrets SET oldest_version = 2 WHERE path = 'a'",
    "UPDATE kv_secrets SET max_versions = 1 WHERE path = 'a'",
    "UPDATE kv_secrets SET cas_required = true WHERE path = 'a'",
    "UPDATE kv_secrets SET delete_version_after = 9 WHERE path = 'a'",
    "UPDATE kv_secrets SET custom_metadata = '{}' WHERE path = 'a'",
    "UPDATE kv_secrets SET revision = 9 WHERE path = 'a'",
    "UPDATE kv_secrets SET updated_at = 9 WHERE path = 'a'",
    "UPDATE kv_secrets SET created_at = 9 WHERE path = 'a'",
    "UPDATE kv_secrets SET mac = '' WHERE path = 'a'",
    "UPDATE kv_secrets SET versions = '[[1,0,false],[1,9,false]]' WHERE path = 'a'",
    "UPDATE kv_secrets SET versions = '[]' WHERE path = 'a'",
    "UPDATE kv_secrets SET versions = 'x' WHERE path = 'a'",
    "UPDATE kv_versions SET version = version + 1 WHERE version = 2",
    "DELETE FROM kv_versions WHERE version = 2",
]


@pytest.mark.parametrize("edit", _EDITS)
async def test_edited_rows(office: Office, edit: str) -> None:
    """A secret of which any column was edited, or a version removed, is refused, not read otherwise."""
    await written(office, "a", b"1", b"2")
    await office.sql(edit)
    moved = "SET path" in edit or "SET store" in edit
    where = ("other", "a") if "SET store" in edit else (STORE, "b" if moved else "a")
    async with office.database.read() as connection:
        with pytest.raises(IntegrityFailure) as caught:
            await kv.load(connection, office.keyring, *where)
    assert caught.value.table in {"kv_secrets", "kv_versions"}
    assert where[1] in caught.value.key


async def test_a_value_from_elsewhere(office: Office) -> None:
    """A sealed value opens at its own place only, even where its row is made to fit."""
    first = await written(office, "a", b"of a")
    second = await written(office, "b", b"of b")
    rows = await office.sql("SELECT sealed FROM kv_versions WHERE id = $1", first.id)
    with pytest.raises(DecryptionFailed):
        office.keyring.open(rows[0]["sealed"], kv.value_place(second.id, 1))
    with pytest.raises(DecryptionFailed):
        office.keyring.open(rows[0]["sealed"], kv.value_place(first.id, 2))


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE kv_versions SET sealed = '\\x01' WHERE version = 2",
        """UPDATE kv_versions v SET sealed = w.sealed FROM kv_versions w
           WHERE v.version = 2 AND w.version = 1""",
    ],
)
async def test_an_edited_value_does_not_open(office: Office, edit: str) -> None:
    """A version whose value is another's, or nobody's, has none."""
    await written(office, "a", b"1", b"2")
    await office.sql(edit)
    with pytest.raises(DecryptionFailed):
        await load(office, "a")


async def test_a_state_is_not_taken_back(office: Office) -> None:
    """The row of a version from before its deletion brings nothing back: the head says what holds."""
    head = await written(office, "a", b"1", b"2")
    saved = await office.sql("SELECT * FROM kv_versions WHERE version = 2")
    gone = head.changed({2: kv.State(created_at=1, deleted_at=5, destroyed=True)}, 5)
    async with office.database.write() as connection:
        await kv.update_head(connection, office.keyring, gone, "secret/a")
    await office.sql("DELETE FROM kv_versions WHERE version = 2")
    assert await load(office, "a") is None
    await office.sql("INSERT INTO kv_versions VALUES ($1, $2, $3)", *saved[0].values())
    assert await load(office, "a") is None
    async with office.database.read() as connection:
        found = await kv.load(connection, office.keyring, STORE, "a")
    assert found is not None
    assert found[0] == gone


async def test_one_write_that_the_database_refuses(office: Office) -> None:
    """Of many writes in one transaction one that cannot be stored fails alone, and none waits for ever."""
    writer = KvWriter(office.database)
    heads = [first_head(f"p{n}") for n in range(600)]
    heads[100] = first_head("".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=4000)))
    results = await asyncio.gather(*(put(office, writer, h, b"x") for h in heads), return_exceptions=True)
    assert isinstance(results.pop(100), asyncpg.PostgresError)
    assert results == ["done"] * 599


def _expected(paths: set[str], prefix: str, after: str, limit: int) -> list[str]:
    """Return what a list below ``prefix`` shows, worked out the simple way."""
    names = set()
    for path in paths:
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            names.add(name + slash)
    return sorted(name for name in names if name > after)[:limit]


_SEGMENTS = st.text(st.sampled_from("ab-.~ é\U0001f511"), min_size=1, max_size=3)
_PATHS = st.lists(_SEGMENTS, min_size=1, max_size=4).map("/".join)


async def test_lists(office: Office) -> None:
    """A list shows what lies directly below a path, in order, page by page, whatever the names are."""

    async def check(paths: set[str], prefix: str, limit: int) -> None:
        await office.sql("DELETE FROM kv_secrets")
        for path in paths:
            await office.sql(
                """INSERT INTO kv_secrets VALUES ($1, $2, $3, 1, 1, 1, 0, false, 0, '', 1, 1, '[]', '')""",
                STORE,
                path,
                new_uuid(),
            )
        found: list[str] = []
        after = ""
        async with office.database.read() as connection:
            while page := await kv.children(connection, STORE, prefix, after=after, limit=limit):
                assert len(page) <= limit
                found += page
                after = page[-1]
        assert found == _expected(paths, prefix, "", 1000)

    loop = asyncio.get_running_loop()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sets(_PATHS, max_size=12), st.sampled_from(["", "a/", "a/b/", "é/"]), st.integers(1, 5))
    def compare(paths: set[str], prefix: str, limit: int) -> None:
        asyncio.run_coroutine_threadsafe(check(paths, prefix, limit), loop).result()

    await asyncio.to_thread(compare)


async def test_a_list_costs_no_more_for_what_lies_deeper(office: Office) -> None:
    """A folder with thousands of secrets is one entry, found without reading them all."""
    await office.sql(
        """INSERT INTO kv_secrets
           SELECT $1, 'big/' || n, 'i' || n, 1, 1, 1, 0, false, 0, '', 1, 1, '[]', ''
           FROM generate_series(1, 5000) AS n""",
        STORE,
    )
    for path in ("a", "big", "c"):
        await written(office, path, b"x")
    statements: list[Any] = []
    async with office.database.read() as connection:
        with connection.query_logger(statements.append):
            assert await kv.children(connection, STORE, "") == ["a", "big", "big/", "c"]
    assert len(statements) <= 4


async def test_a_batch_that_cannot_be_written(office: Office) -> None:
    """When a transaction of writes is cut off, each of them is unavailable, and the next ones go on."""
    await office.sql(
        """CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"""
    )
    await office.sql(
        """CREATE TRIGGER hang_up BEFORE INSERT ON kv_secrets FOR EACH ROW
           WHEN (NEW.path = 'doomed') EXECUTE FUNCTION hang_up()"""
    )
    writer = KvWriter(office.database)
    results = await asyncio.gather(
        *(put(office, writer, first_head(path), b"x") for path in ("a", "doomed", "b")),
        return_exceptions=True,
    )
    assert {getattr(result, "code", result) for result in results} <= {"unavailable", "done"}
    assert getattr(results[1], "code", "") == "unavailable"
    assert await put(office, writer, first_head("c"), b"x") == "done"
    there = {row["path"] for row in await office.sql("SELECT path FROM kv_secrets")}
    assert "doomed" not in there
    for path, result in zip(("a", "b"), (results[0], results[2]), strict=True):
        assert (path in there) == (result == "done")


async def test_a_write_waits_for_the_seal(office: Office) -> None:
    """A write that waits while the cluster is sealed does not happen."""
    connection = await asyncpg.connect(office.url)
    try:
        await connection.execute("BEGIN")
        await connection.execute("SELECT pg_advisory_xact_lock(7305086391846015)")
        await connection.execute("UPDATE cluster SET sealed = true, seal_epoch = seal_epoch + 1")
        writing = asyncio.create_task(put(office, KvWriter(office.database), first_head("a"), b"x"))
        stuck = """SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
        await until(lambda: office.sql(stuck))
        await connection.execute("COMMIT")
        assert await writing == "stale"
    finally:
        await connection.close()
    assert await office.sql("SELECT 1 FROM kv_secrets") == []
