"""The archive of the ledger in files: what leaves the ledger is there, proven, and nothing else leaves."""

from __future__ import annotations

import asyncio
import gzip
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from secrethub.operations.months import drop_months
from tests.gateway.archives import configure, lines_of, nothing_is_lost, old_entries, run, segment
from tests.gateway.audit_sinks import caught_up, enable
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, status
from tests.gateway.shell import Cli


async def test_reads_that_left(node: Node, folder: Path) -> None:
    """Who asks for the reads of a secret, or what a policy would change, is told what is in the archive."""
    await node.call("POST", "secrets/a", json={"data": {}})
    await node.call("GET", "secrets/a")
    proposed = {"name": "p", "policy": {"version": "1", "statements": []}, "since": "1h"}
    requests: list[tuple[str, str, Any]] = [
        ("GET", "secret/readers/a", None),
        ("GET", "secret/unused?since=1h", None),
        ("POST", "sys/policies/replay", proposed),
    ]
    for method, place, body in requests:
        assert (await node.call(method, place, json=body)).json()["warnings"] is None, place
    await configure(node, folder)
    await old_entries(node)
    await run(node)
    assert (await ok(node, "GET", "secret/readers/a"))["reads"] == []
    for method, place, body in requests:
        (said,) = (await node.call(method, place, json=body)).json()["warnings"]
        assert "archive" in said, place
    assert (await node.call("GET", "secret/unused?since=0s")).json()["warnings"] is None


async def test_old_entries_leave(node: Node, folder: Path) -> None:
    """Old entries become verified segments, leave the ledger, and both verify, alone and together."""
    await configure(node, folder, segment_entries=20)
    await old_entries(node, 60)
    before = await sql(node.settings.database_url, "SELECT count(*) AS n FROM audit_entries")
    done = await run(node)
    assert len(done["segments"]) >= 3
    assert done["entries"] >= 60
    left = await sql(node.settings.database_url, "SELECT count(*) AS n FROM audit_entries")
    assert left[0]["n"] < before[0]["n"]
    await ledger_is_good(node, state=True)
    assert (await ok(node, "POST", "sys/audit/archive/verify", {}))["ok"]
    assert await nothing_is_lost(node, folder) > 60
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(folder.iterdir())) == 2 * len(done["segments"])
    await old_entries(node, 5)
    again = await run(node)
    assert again["segments"][0] == done["segments"][-1] + 1
    await ledger_is_good(node, state=True)
    assert await nothing_is_lost(node, folder) > 60
    listed = (await ok(node, "GET", "sys/audit/archive/segments"))["segments"]
    assert [one["number"] for one in listed] == done["segments"] + again["segments"]
    assert {one["state"] for one in listed} == {"archived"}
    metrics = (await node.call("GET", "sys/metrics")).text
    assert "secrethub_audit_archived_total" in metrics


async def test_what_is_not_old_stays(node: Node, folder: Path) -> None:
    """Entries within the retention are not touched."""
    await configure(node, folder, "1h")
    await old_entries(node, 5)
    assert await run(node) == {"segments": [], "entries": 0, "waiting": ""}
    assert list(folder.iterdir()) == []


async def test_the_ledger_after_it(node: Node, folder: Path) -> None:
    """What is left is still found, exported and read as authentic, and a new life of the process goes on."""
    await ok(node, "POST", "secret/data/a", {"data": {}})
    await configure(node, folder)
    await old_entries(node)
    await run(node)
    await ok(node, "GET", "secret/data/a")
    assert (await ok(node, "GET", "secret/readers/a"))["reads"]
    found = (await ok(node, "GET", "sys/audit/entries?limit=500"))["entries"]
    assert {entry["integrity"] for entry in found} == {"ok"}
    lines = [json.loads(line) for line in (await node.call("GET", "sys/audit/export")).text.splitlines()]
    assert [line for line in lines if line["type"] == "base"]
    await ok(node, "PUT", "sys/seal")
    await node.unseal()
    await ok(node, "GET", "secret/data/a")
    await ledger_is_good(node, state=True)
    await old_entries(node, 3)
    assert (await run(node))["segments"]
    await ledger_is_good(node, state=True)
    assert await nothing_is_lost(node, folder)


async def test_again_and_again(node: Node, folder: Path) -> None:
    """Records of removal that are archived themselves are stated again, so the rest stays proven."""
    await configure(node, folder)
    for _ in range(4):
        await old_entries(node, 4)
        assert (await run(node))["segments"]
        await ledger_is_good(node, state=True)
    prunes = await entries(node.settings.database_url, kind="prune")
    assert prunes
    assert len(lines_of(folder, 2)) > 2
    assert (await ok(node, "POST", "sys/audit/archive/verify", {}))["ok"]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE audit_entries SET actor = 'x' WHERE path = 'secret/data/old3'", "edited"),
        ("DELETE FROM audit_entries WHERE path = 'secret/data/old3'", "gap"),
    ],
)
async def test_what_does_not_verify_stays(node: Node, folder: Path, statement: str, reason: str) -> None:
    """Entries that were tampered with are neither archived nor removed: they are evidence."""
    await configure(node, folder)
    await old_entries(node)
    await sql(node.settings.database_url, statement)
    kept = await sql(node.settings.database_url, "SELECT count(*) AS n FROM audit_entries")
    answer = await node.call("POST", "sys/audit/archive/run", json={})
    assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure")
    left = await sql(node.settings.database_url, "SELECT count(*) AS n FROM audit_entries")
    assert left[0]["n"] >= kept[0]["n"]
    assert list(folder.iterdir()) == []
    verdict = (await node.call("POST", "sys/audit/verify")).json()["data"]
    assert verdict["first_bad"]["reason"] == reason


async def test_a_stream_stripped_of_its_signatures(node: Node, folder: Path) -> None:
    """A forged stream without signatures, which nobody adopted, is not made genuine by archiving it."""
    await configure(node, folder)
    await old_entries(node)
    forged = "00000000-0000-4000-8000-000000000000"
    from secrethub.audit.chain import Chain

    made = Chain(forged, None).append(at=1, kind="event", actor="x", operation="y", outcome="done")
    entry = made.entry
    await sql(
        node.settings.database_url,
        """INSERT INTO audit_entries (stream, number, at, kind, request_id, actor, operation, path, outcome,
               reason, client, door, detail, hash, signature)
           VALUES ($1, 1, 1, 'event', '', 'x', 'y', '', 'done', '', '', '', $2, $3, '')""",
        forged,
        entry.detail,
        made.hash,
    )
    assert (await run(node))["segments"]
    assert await sql(node.settings.database_url, "SELECT 1 FROM audit_entries WHERE stream = $1", forged)
    verdict = (await node.call("POST", "sys/audit/verify")).json()["data"]
    assert verdict["first_bad"]["reason"] == "not adopted"


async def test_entries_in_the_place_of_archived_ones(node: Node, folder: Path) -> None:
    """Who puts entries where there were others before they were archived is found out."""
    await configure(node, folder)
    await old_entries(node)
    assert (await run(node))["segments"]
    (put,) = await sql(
        node.settings.database_url,
        """INSERT INTO audit_entries
           SELECT e.stream, 5, e.at, 'request', '', 'token:x:framed', 'kv.read', 'secret/data/a', 'done', '',
                  '', '', '{}', e.hash, e.signature
           FROM audit_entries e JOIN audit_pruned p ON p.stream = e.stream AND e.number = p.number + 1
           RETURNING stream""",
    )
    verdict = (await node.call("POST", "sys/audit/verify")).json()["data"]
    assert verdict["first_bad"] == {"stream": put["stream"], "number": 5, "reason": "duplicate"}


@pytest.mark.parametrize("victim", ["file", "manifest", "gone", "swapped"])
async def test_a_damaged_archive(node: Node, folder: Path, victim: str) -> None:
    """A segment that was edited, removed or replaced is named by the verification."""
    await configure(node, folder, segment_entries=20)
    await old_entries(node, 60)
    assert len((await run(node))["segments"]) >= 3
    file, manifest = segment(folder, 2), segment(folder, 2, "manifest.json")
    if victim == "file":
        text = gzip.decompress(file.read_bytes()).replace(b"secret/data/old", b"secret/data/0ld")
        file.write_bytes(gzip.compress(text))
    elif victim == "manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b'"entries":', b'"entries":1'))
    elif victim == "gone":
        file.unlink()
    else:
        file.write_bytes(segment(folder, 1).read_bytes())
    verdict = await ok(node, "POST", "sys/audit/archive/verify", {})
    assert not verdict["ok"]
    assert verdict["first_bad"]["segment"] == 2
    await ledger_is_good(node, state=True)


async def test_a_database_writer_cannot_let_entries_vanish(node: Node, folder: Path) -> None:
    """Marks of segments that are forged in the database make nothing be removed that is not archived."""
    url = node.settings.database_url
    await configure(node, folder)
    await old_entries(node)
    await run(node)
    await sql(url, "DELETE FROM audit_segments")
    verdict = await ok(node, "POST", "sys/audit/archive/verify", {})
    assert not verdict["ok"]
    assert "in no segment" in verdict["first_bad"]["reason"]
    await old_entries(node, 3)
    await sql(url, "UPDATE audit_pruned SET number = number + 2")
    answer = await node.call("POST", "sys/audit/archive/run", json={})
    assert answer.json()["code"] == "integrity_failure"


async def test_a_store_that_is_away(node: Node, folder: Path) -> None:
    """While the store is away nothing leaves the ledger, requests go on, and then it is caught up."""
    await configure(node, folder)
    await old_entries(node)
    folder.rename(folder.parent / "away")
    answer = await node.call("POST", "sys/audit/archive/run", json={})
    assert answer.status_code == 503
    assert await status(node, "GET", "secret/data/x") == 404
    assert (await ok(node, "GET", "sys/audit/archive"))["status"]["unfinished"]
    await ledger_is_good(node, state=True)
    (folder.parent / "away").rename(folder)
    assert (await run(node))["segments"]
    await ledger_is_good(node, state=True)
    assert await nothing_is_lost(node, folder)


async def test_sinks_come_first(node: Node, folder: Path) -> None:
    """Entries that a sink was not given yet stay in the ledger until it was."""
    below = folder.parent / "below"
    below.mkdir(mode=0o700)
    place = below / "ledger.jsonl"
    await configure(node, folder)
    await enable(node, "local", "file", file_path=str(place))
    await caught_up(node, place)
    below.rename(folder.parent / "away")
    await old_entries(node)
    assert "sinks" in (await run(node))["waiting"]
    # Whoever writes to the database makes nobody believe that it was.
    await sql(
        node.settings.database_url,
        """UPDATE audit_sink_positions p SET number = s.number, hash = s.hash
           FROM audit_streams s WHERE s.stream = p.stream""",
    )
    assert "sinks" in (await run(node))["waiting"]
    (folder.parent / "away").rename(below)

    async def done() -> list[int]:
        return list((await run(node))["segments"])

    assert await until(done)
    found = await caught_up(node, place)
    assert len({e["path"] for e in found if e["path"].startswith("secret/data/old")}) == 30


async def test_one_at_a_time(node: Node, folder: Path) -> None:
    """Of several that archive at once one does it, the others are told, and nothing is doubled."""
    await configure(node, folder)
    await old_entries(node)
    answers = await asyncio.gather(*(node.call("POST", "sys/audit/archive/run", json={}) for _ in range(5)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 200
    assert set(codes) <= {200, 400, 409}
    await ledger_is_good(node, state=True)
    assert await nothing_is_lost(node, folder)


async def test_a_number_that_is_given_again(node: Node, folder: Path) -> None:
    """After an older database was put back, what was archived under the same number is not overwritten."""
    await configure(node, folder)
    await old_entries(node, 10)
    await run(node)
    first = segment(folder, 1)
    content = first.read_bytes()
    await sql(node.settings.database_url, "DELETE FROM audit_segments")
    await old_entries(node, 3)
    assert (await run(node))["segments"] == [1]
    assert first.read_bytes() == content
    assert len(list(folder.glob("00000001-*.jsonl.gz"))) == 2


async def test_months_that_are_over_and_empty_go(node: Node) -> None:
    """A part of a past month goes once it is empty, one with entries stays."""
    url = node.settings.database_url
    for year, bounds in ((2001, (978307200, 980985600)), (2002, (1009843200, 1012521600))):
        name = f"audit_entries_{year}_01"
        await sql(url, f"CREATE TABLE {name} (LIKE audit_entries, PRIMARY KEY (stream, number))")
        low, high = (bound * 1_000_000 for bound in bounds)
        await sql(
            url, f"ALTER TABLE audit_entries ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
        )
    await sql(
        url,
        """INSERT INTO audit_entries
           SELECT 's', 1, 1009843200000001, '', '', '', '', '', '', '', '', '', '{}', ''::bytea, ''::bytea""",
    )
    assert await drop_months(node.process.core.database) == 1
    left = await sql(
        url, "SELECT to_regclass('audit_entries_2001_01') AS a, to_regclass('audit_entries_2002_01') AS b"
    )
    assert (left[0]["a"], left[0]["b"]) == (None, "audit_entries_2002_01")


async def test_who_may(node: Node, folder: Path) -> None:
    """All of it takes sudo at its own path, and is written down."""
    plain = await node.token("plain", native("**", capabilities=("read", "list", "update", "delete")))
    await configure(node, folder)
    for method, path, body in (
        ("GET", "sys/audit/archive", None),
        ("PUT", "sys/audit/archive", {"type": "file", "path": str(folder), "retention": "1s"}),
        ("DELETE", "sys/audit/archive", None),
        ("POST", "sys/audit/archive/run", {}),
        ("GET", "sys/audit/archive/segments", None),
        ("POST", "sys/audit/archive/verify", {}),
    ):
        for token in (plain, ""):
            assert await status(node, method, path, body, token=token) == 403, path
    await ok(node, "DELETE", "sys/audit/archive")
    assert await status(node, "GET", "sys/audit/archive") == 404
    assert await status(node, "POST", "sys/audit/archive/run", {}) == 404
    assert await entries(node.settings.database_url, operation="sys.audit.archive.delete", outcome="done")


async def test_settings_that_cannot_be(node: Node, folder: Path, tmp_path: Path) -> None:
    """Unknown fields, places elsewhere, mixed kinds and impossible times are refused."""
    s3: dict[str, Any] = {
        "type": "s3",
        "retention": "1h",
        "bucket": "ledger",
        "region": "eu-central-1",
        "access_key_id": "AKIA",
        "secret_access_key": "x",
        "endpoint": "https://192.0.2.1",
    }
    for body in (
        {"type": "tape", "retention": "1h"},
        {"type": "file", "retention": "1h"},
        {"type": "file", "retention": "1h", "path": str(tmp_path / "elsewhere")},
        {"type": "file", "retention": "1h", "path": "/etc"},
        {"type": "file", "retention": "0s", "path": str(folder)},
        {"type": "file", "retention": "1h", "path": str(folder), "segment_entries": 0},
        {"type": "file", "retention": "1h", "path": str(folder), "segment_entries": 100_001},
        {"type": "file", "retention": "never", "path": str(folder)},
        {"type": "file", "retention": "1h", "path": str(folder), "bucket": "b"},
        {"type": "file", "retention": "1h", "path": str(folder), "color": "red"},
        {"type": "file", "path": str(folder)},
        s3 | {"path": str(folder)},
        s3 | {"bucket": "No"},
        s3 | {"prefix": "no-slash"},
        s3 | {"prefix": "../"} | {"bucket": "b"},
        s3 | {"region": "eu central"},
        s3 | {"secret_access_key": ""},
        s3 | {"access_key_id": "a b"},
        s3 | {"endpoint": "https://169.254.169.254"},
        s3 | {"endpoint": "http://127.0.0.1:9000"},
        s3 | {"endpoint": "http://192.0.2.1"},
        s3 | {"endpoint": "https://192.0.2.1/path"},
        s3 | {"endpoint": "https://u:p@192.0.2.1"},
    ):
        assert await status(node, "PUT", "sys/audit/archive", body) == 400, body


async def test_the_command(node: Node, folder: Path, tmp_path: Path) -> None:
    """The commands configure, run, list and verify."""
    cli = Cli(node, tmp_path)
    await cli("audit", "archive", "config", "--type", "file", f"path={folder}", "--retention", "1s")
    assert "1" in await cli("audit", "archive", "config")
    await old_entries(node, 5)
    done = await cli.json("audit", "archive", "run")
    assert done["segments"] == [1]
    assert segment(folder, 1).name in await cli("audit", "archive", "list")
    assert [
        one["number"] for one in (await cli.json("audit", "archive", "list", "--after", "0"))["segments"]
    ] == [1]
    assert (await cli.json("audit", "archive", "list", "--after", "1"))["segments"] == []
    assert "intact" in await cli("audit", "archive", "verify")
    segment(folder, 1).unlink()
    assert "missing" in await cli("audit", "archive", "verify", code=1)
    await cli("audit", "archive", "off")
    for word in ("run", "verify"):
        assert "archive config" in await cli("audit", "archive", word, code=1)
    wrong = ("--type", "file", "path=/elsewhere/archive", "--retention", "1s")
    assert "path must be below" in (said := await cli("audit", "archive", "config", *wrong, code=1))
    assert "file_path" not in said
