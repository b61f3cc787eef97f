"""Who may write where the ledger's files are, and two processes that serve the same sinks."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from secrethub.engines.own_changes import own_changes
from secrethub.engines.sinks.file import FileTarget
from secrethub.engines.sinks.target import TargetFailed
from secrethub.storage.authority import AUDIT_SETTINGS
from tests.gateway.audit_sinks import caught_up, delivered, enable, state, with_sinks
from tests.gateway.behind import entries, integrity_failures, ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.kv import ok, status
from tests.gateway.pair import healthy
from tests.gateway.second_process import Second, started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where sinks may write."""
    made = tmp_path / "sinks"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
async def node(database_url: str, tmp_path: Path, folder: Path) -> AsyncIterator[Node]:
    """A node whose sinks may write there."""
    async with running(with_sinks(node_settings(tmp_path, database_url), folder)) as one:
        await one.initialise()
        await one.unseal()
        yield one


async def _refused(node: Node, path: Path | str) -> bool:
    body = {"type": "file", "options": {"file_path": str(path)}}
    return await status(node, "PUT", "sys/audit/x", body) == 400


async def test_files_that_are_not_ours(node: Node, folder: Path, tmp_path: Path) -> None:
    """Places elsewhere, links, directories, pipes, second names and files that others read are refused."""
    secret = tmp_path / "victim"
    secret.write_text("untouched")
    secret.chmod(0o600)
    (folder / "link").symlink_to(secret)
    (folder / "hard").hardlink_to(secret)
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    (folder / "dir").mkdir()
    os.mkfifo(folder / "pipe", 0o600)
    (folder / "open").touch()
    (folder / "open").chmod(0o644)
    for path in (
        "/etc/cron.d/x",
        tmp_path / "elsewhere",
        f"{folder}/../victim",
        "relative",
        "stdout",
        "",
        folder,
        folder / "link",
        folder / "hard",
        folder / "out" / "new",
        folder / "dir",
        folder / "pipe",
        folder / "open",
        folder / "none" / "x",
        f"{folder}/a\nb",
    ):
        assert await _refused(node, path), path
    if os.geteuid() == 0:
        foreign = folder / "foreign"
        foreign.touch(mode=0o600)
        os.chown(foreign, 65534, 65534)
        assert await _refused(node, foreign)
    assert secret.read_text() == "untouched"
    assert not (tmp_path / "new").exists()


async def test_a_full_disk(tmp_path: Path, folder: Path) -> None:
    """What does not fit leaves nothing behind, and comes whole once there is room again."""
    path = folder / "ledger.jsonl"
    target = FileTarget(with_sinks(node_settings(tmp_path, ""), folder), str(path))
    await target.send([b'{"n":0}'] * 1000)
    before = path.read_bytes()
    lines = [f'{{"n":{number}}}'.encode() for number in range(100)]
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, unlimited[1]))
    try:
        with pytest.raises(TargetFailed, match="File too large"):
            await target.send(lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert path.read_bytes() == before
    await target.send(lines)
    await target.close()
    assert path.read_bytes().removeprefix(before).splitlines() == lines


async def test_a_link_that_comes_later(node: Node, folder: Path, tmp_path: Path) -> None:
    """Whoever replaces the file by a link to another one leads nothing there."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    victim.chmod(0o600)
    place = folder / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await caught_up(node, place)
    place.rename(folder / "old")
    place.symlink_to(victim)
    await ok(node, "POST", "secret/data/a", {"data": {}})

    async def failing() -> bool:
        return bool((await state(node, "local"))["error"])

    await until(failing)
    assert victim.read_text() == "untouched"
    place.unlink()
    assert [entry for entry in await caught_up(node, place) if entry["path"] == "secret/data/a"]


async def test_without_settings_only_the_own_folder(database_url: str, tmp_path: Path) -> None:
    """By default sinks write below the node's own state directory, which others cannot enter."""
    async with running(node_settings(tmp_path, database_url)) as one:
        await one.initialise()
        await one.unseal()
        place = Path(one.settings.state_dir) / "audit" / "ledger.jsonl"
        await enable(one, "local", "file", file_path=str(place))
        await caught_up(one, place)
        assert place.parent.stat().st_mode & 0o077 == 0
        assert await _refused(one, tmp_path / "x")


async def test_a_sink_that_was_put_in_by_hand(node: Node, folder: Path) -> None:
    """A database writer cannot send the ledger elsewhere: a sink that he edits is not served."""
    place = folder / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await caught_up(node, place)
    url = node.settings.database_url
    stolen = folder / "stolen.jsonl"
    await sql(
        url,
        """UPDATE audit_settings SET body = jsonb_set(body, '{options,file_path}', to_jsonb($1::text))""",
        str(stolen),
    )
    for _ in range(5):
        await ok(node, "POST", "secret/data/a", {"data": {}})
    assert await status(node, "GET", "sys/audit") == 500
    assert (await integrity_failures(node))["audit_settings"] > 0
    assert [entry for entry in await caught_up(node, place) if entry["path"] == "secret/data/a"]
    assert not stolen.exists()


_TAMPERED = {
    "ahead": """UPDATE audit_sink_positions p SET number = s.number, hash = s.hash
                FROM audit_streams s WHERE s.stream = p.stream AND p.sink = $1""",
    "ahead, without mac": """UPDATE audit_sink_positions p SET number = s.number, hash = s.hash, mac = NULL
                             FROM audit_streams s WHERE s.stream = p.stream AND p.sink = $1""",
    "back": "UPDATE audit_sink_positions SET number = number - 1 WHERE sink = $1 AND number > 1",
    "another hash": "UPDATE audit_sink_positions SET hash = sha256(hash) WHERE sink = $1",
    "another sink's": """UPDATE audit_sink_positions p SET number = o.number, hash = o.hash, mac = o.mac
                         FROM audit_sink_positions o
                         WHERE p.sink = $1 AND o.sink <> $1 AND o.stream = p.stream""",
    "another stream's": """UPDATE audit_sink_positions p SET number = o.number, hash = o.hash, mac = o.mac
                           FROM audit_sink_positions o
                           WHERE p.sink = $1 AND o.sink = $1 AND o.stream <> p.stream""",
}


async def _sink(node: Node, name: str) -> str:
    """Return a sink's UUID."""
    url = node.settings.database_url
    found = await sql(url, "SELECT body->>'uuid' AS uuid FROM audit_settings WHERE key = $1", f"sink/{name}")
    return str(found[0]["uuid"])


async def _behind(node: Node, folder: Path) -> tuple[Path, Path]:
    """Have a sink ``local`` that is behind by five reads, and one that is not; return both files."""
    below = folder / "below"
    below.mkdir(mode=0o700)
    place, other = below / "ledger.jsonl", folder / "other.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await enable(node, "other", "file", file_path=str(other))
    await caught_up(node, place)
    below.rename(folder / "away")
    for number in range(5):
        await node.call("GET", f"secret/data/x{number}")
    await caught_up(node, other)
    return place, other


def _reads(found: list[dict[str, Any]]) -> set[str]:
    return {entry["path"] for entry in found if "/x" in entry["path"]}


@pytest.mark.parametrize("how", _TAMPERED)
async def test_a_place_that_was_edited(node: Node, folder: Path, how: str) -> None:
    """A place that somebody wrote is not believed: it is told of, and every entry comes, some twice."""
    place, _ = await _behind(node, folder)
    sink, url = await _sink(node, "local"), node.settings.database_url
    await sql(url, _TAMPERED[how], sink)

    async def noted() -> list[dict[str, Any]]:
        return await entries(url, operation="audit.sink.repeat")

    told = await until(noted)
    assert {entry["path"] for entry in told} == {"sys/audit/local"}
    assert told[0]["detail"]["count"] == len(told[0]["detail"]["streams"]) > 0
    assert (await integrity_failures(node))["audit_sink_positions"] >= told[0]["detail"]["count"]
    assert (await state(node, "local"))["behind"] >= 5
    (folder / "away").rename(folder / "below")
    found = await caught_up(node, place)
    assert _reads(found) == {f"secret/data/x{number}" for number in range(5)}
    assert "audit.sink.repeat" in {entry["operation"] for entry in found}

    async def well() -> bool:
        told = await state(node, "local")
        return not told["error"]

    await until(well)


async def test_places_that_were_removed(node: Node, folder: Path) -> None:
    """A sink whose places are gone is given what it was not given yet, after what it was."""
    place, _ = await _behind(node, folder)
    sink, url = await _sink(node, "local"), node.settings.database_url
    await sql(url, "DELETE FROM audit_sink_positions WHERE sink = $1", sink)
    (folder / "away").rename(folder / "below")

    async def there() -> bool:
        return _reads(delivered(place)) == {f"secret/data/x{number}" for number in range(5)}

    await until(there)


async def test_an_edited_place_that_nobody_serves(node: Node, folder: Path) -> None:
    """The list says that a place was edited also while nobody serves the sink, and does not count by it."""
    options = {"file_path": str(folder / "x"), "node": "elsewhere"}
    await ok(node, "PUT", "sys/audit/local", {"type": "file", "options": options})
    before = (await state(node, "local"))["behind"]
    await sql(node.settings.database_url, _TAMPERED["ahead"], await _sink(node, "local"))
    told = await state(node, "local")
    assert told["behind"] > before
    assert "edited" in told["error"]


async def test_places_from_before_they_were_authenticated(node: Node, folder: Path) -> None:
    """Places of a sink from before are taken as they are, once; later they are none without a mac."""
    options = {"file_path": str(folder / "x"), "node": "elsewhere"}
    await ok(node, "PUT", "sys/audit/local", {"type": "file", "options": options})
    sink, url, core = await _sink(node, "local"), node.settings.database_url, node.process.core
    wanted = "SELECT stream, number, hash FROM audit_sink_positions WHERE sink = $1 ORDER BY stream"
    before = await sql(url, wanted, sink)
    unsigned = "SELECT FROM audit_sink_positions WHERE sink = $1 AND mac IS NULL"
    async with own_changes(core, "test") as fence, core.authority.change(fence) as change:
        row = await change.get(AUDIT_SETTINGS, "sink/local")
        assert row is not None
        body = {name: value for name, value in row.body.items() if name != "signed"}
        await change.put(AUDIT_SETTINGS, row.key, body)
        await change.connection.execute("UPDATE audit_sink_positions SET mac = NULL WHERE sink = $1", sink)

    async def signed() -> bool:
        return not await sql(url, unsigned, sink)

    await until(signed)
    assert await sql(url, wanted, sink) == before
    assert not (await state(node, "local"))["error"]
    await ledger_is_good(node, state=True)
    await sql(url, "UPDATE audit_sink_positions SET mac = NULL WHERE sink = $1", sink)
    # Once another sink is served, whoever serves them has looked at this one again.
    await enable(node, "other", "file", file_path=str(folder / "other"))
    await caught_up(node, folder / "other")
    assert "edited" in (await state(node, "local"))["error"]
    assert await sql(url, unsigned, sink)


@pytest.fixture
async def second(node: Node, tmp_path: Path, folder: Path) -> AsyncIterator[Second]:
    """A second process of the node's cluster that may write to the same place."""
    key = Path(node.settings.cluster_key_file).read_text()
    settings = with_sinks(node_settings(tmp_path, node.settings.database_url, "n2", key), folder)
    async with started(settings, node.tree.handles) as process:
        await until(lambda: healthy(process))
        yield process


async def _node(node: Node, name: str) -> str:
    """Return which node delivered last."""
    return str((await state(node, name))["node"])


async def test_another_process_takes_over(node: Node, second: Second, folder: Path) -> None:
    """One process at a time serves a sink; when it is killed another goes on, and nothing is missing."""
    place = folder / "ledger.jsonl"
    answer = await second.call(
        "PUT",
        "sys/audit/local",
        node.root,
        json={"type": "file", "options": {"file_path": str(place), "node": "n2"}},
    )
    assert answer.status_code == 204, answer.text
    await ok(node, "POST", "secret/data/a", {"data": {}})
    await caught_up(node, place)
    assert await until(lambda: _node(node, "local")) == "n2"
    url = node.settings.database_url
    shared = folder / "shared.jsonl"
    await enable(node, "shared", "file", file_path=str(shared))
    for number in range(20):
        await second.call("GET", f"secret/data/x{number}", node.root)
    await caught_up(node, shared)
    # Whoever has it, the claim of the other one is not taken any more.
    sink = await sql(url, "SELECT sink, node FROM audit_sinks WHERE delivered > 0 ORDER BY node")
    assert {row["node"] for row in sink} <= {"n1", "n2"}
    second.kill()
    for number in range(20, 40):
        await node.call("GET", f"secret/data/x{number}")
    await sql(url, "UPDATE locks SET expires_at = clock_timestamp() WHERE name LIKE 'audit-sink/%'")
    found = await caught_up(node, shared)
    kept = await sql(
        url, "SELECT stream, number FROM audit_entries WHERE path LIKE 'secret/data/x%' ORDER BY at"
    )
    assert {(row["stream"], row["number"]) for row in kept} <= {(e["stream"], e["number"]) for e in found}
    per_stream: dict[str, list[int]] = {}
    for entry in delivered(shared):
        per_stream.setdefault(entry["stream"], []).append(entry["number"])
    for numbers in per_stream.values():
        assert sorted(set(numbers)) == list(range(min(numbers), max(numbers) + 1))
