"""Sinks of the ledger: what they get, when it comes again, and what happens when they take nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hvac
import pytest

from secrethub.audit.event import Entry, entry_hash
from secrethub.audit.masking import canonical_json
from tests.gateway.audit_sinks import caught_up, delivered, enable, paths, state, with_sinks
from tests.gateway.behind import entries, fill_ledger, sql, until
from tests.gateway.conftest import Node, native, node_settings, running
from tests.gateway.kv import ok, put, status
from tests.gateway.shell import Cli
from tests.gateway.test_hvac import with_client


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


async def test_a_file_gets_every_entry(node: Node, folder: Path) -> None:
    """A file gets each entry from the sink's beginning on once and in order, and can be checked by itself."""
    await put(node, "before", {"n": 1})
    place = folder / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    for number in range(40):
        await node.call("GET", f"secret/data/x{number}")
    found = await caught_up(node, place)
    assert "secret/data/before" not in [entry["path"] for entry in found]
    assert [entry["path"] for entry in found if entry["path"].startswith("secret/data/x")] == [
        f"secret/data/x{number}" for number in range(40)
    ]
    places = [(entry["stream"], entry["number"]) for entry in found]
    assert len(set(places)) == len(places)
    assert {entry["integrity"] for entry in found} == {"ok"}
    one, two = found[-2:]
    rows = await sql(
        node.settings.database_url,
        "SELECT at FROM audit_entries WHERE stream = $1 AND number = $2",
        two["stream"],
        two["number"],
    )
    fields = {name: two[name] for name in Entry.__struct_fields__ if name not in {"at", "detail"}}
    entry = Entry(**fields, at=rows[0]["at"], detail=canonical_json(two["detail"]))
    assert entry_hash(bytes.fromhex(one["hash"]), entry).hex() == two["hash"]

    async def counted() -> bool:
        """What the file has is written down a moment later."""
        return bool((await state(node, "local"))["delivered"] >= 40)

    await until(counted)
    told = await state(node, "local")
    assert (told["skipped"], told["error"], told["node"]) == (0, "", "n1")


async def test_rotation(node: Node, folder: Path) -> None:
    """A file that was renamed or removed is made anew, and no entry is lost over it."""
    place, old = folder / "ledger.jsonl", folder / "ledger.jsonl.1"
    await enable(node, "local", "file", file_path=str(place))
    await put(node, "a", {"n": 1})
    first = await caught_up(node, place)
    place.rename(old)
    await ok(node, "GET", "secret/data/a")
    second = await caught_up(node, place)
    assert delivered(old) == first
    assert "secret/data/a" in paths(second)
    place.unlink()
    await ok(node, "GET", "secret/data/a")
    await until(lambda: _there(place))


async def _there(place: Path) -> bool:
    return bool(delivered(place))


async def test_a_delivery_that_fails_for_no_known_reason(
    node: Node, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of ends an attempt to deliver and not the delivery: it is begun anew."""
    place, url = folder / "ledger.jsonl", node.settings.database_url
    await enable(node, "local", "file", file_path=str(place))
    await put(node, "a", {"n": 1})
    await caught_up(node, place)
    await sql(url, "ALTER TABLE audit_sink_positions RENAME TO elsewhere")

    async def failed() -> bool:
        return "audit-sink-local failed and begins anew" in caplog.text

    await until(failed)
    await sql(url, "ALTER TABLE elsewhere RENAME TO audit_sink_positions")
    await ok(node, "GET", "secret/data/a")
    assert "secret/data/a" in paths(await caught_up(node, place))


async def test_a_line_that_was_cut(node: Node, folder: Path) -> None:
    """What a crash left of a line is ended before the next one, so that every later line is whole."""
    place = folder / "ledger.jsonl"
    place.touch(mode=0o600)
    place.write_text('{"stream": "cut')
    await enable(node, "local", "file", file_path=str(place))
    await put(node, "a", {"n": 1})
    await until(lambda: _there(place))
    first, *rest = place.read_text().splitlines()
    assert first == '{"stream": "cut'
    assert rest
    assert all(json.loads(line)["hash"] for line in rest)


async def test_a_target_that_is_away(node: Node, folder: Path) -> None:
    """While a target takes nothing requests go on and the sink falls behind; later it gets everything."""
    below = folder / "below"
    below.mkdir(mode=0o700)
    place = below / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await caught_up(node, place)
    below.rename(folder / "away")
    for number in range(30):
        await node.call("GET", f"secret/data/x{number}")

    async def failing() -> dict[str, Any] | None:
        told = await state(node, "local")
        return told if told["error"] and told["behind"] >= 30 else None

    told = await until(failing)
    assert "No such file" in told["error"]
    assert told["failing_since"]
    metrics = (await node.call("GET", "sys/metrics")).text
    behind = [line for line in metrics.splitlines() if line.startswith("secrethub_audit_sink_behind{")]
    assert 'sink="local"' in behind[0]
    assert "secrethub_audit_sink_failures_total{" in metrics
    (folder / "away").rename(below)
    found = await caught_up(node, place)
    assert [entry["path"] for entry in found if "/x" in entry["path"]] == [
        f"secret/data/x{number}" for number in range(30)
    ]

    async def well() -> bool:
        told = await state(node, "local")
        return not told["error"] and not told["failing_since"]

    await until(well)


async def test_it_goes_on_after_a_restart(database_url: str, tmp_path: Path, folder: Path) -> None:
    """What was written while no process delivered is delivered by the next one, and nothing twice."""
    place = folder / "ledger.jsonl"
    settings = with_sinks(node_settings(tmp_path, database_url), folder)
    async with running(settings) as node:
        await node.initialise()
        await node.unseal()
        await enable(node, "local", "file", file_path=str(place))
        await ok(node, "POST", "secret/data/a", {"data": {}})
        await caught_up(node, place)
        shares, root = node.shares, node.root
    async with running(settings) as node:
        node.shares, node.root = shares, root
        await node.unseal()
        await ok(node, "GET", "secret/data/a")
        found = await caught_up(node, place)
        places = [(entry["stream"], entry["number"]) for entry in found]
        assert len(set(places)) == len(places)
        kept = await entries(database_url)
        first = next(n for n, e in enumerate(kept) if (e["stream"], e["number"]) == places[0])
        missing = {(e["stream"], e["number"]) for e in kept[first:]} - set(places)
        newest = {(row["stream"]) for row in await sql(database_url, "SELECT stream FROM audit_streams")}
        assert not {place for place in missing if place[0] not in newest}
        # The close of the first life and the seal's own stream of the second are there, too.
        assert {"close", "open", "event"} <= {entry["kind"] for entry in found}


async def test_too_far_behind(node: Node, folder: Path) -> None:
    """What is older than the sink may be behind is left out, counted, and written into the ledger."""
    below = folder / "below"
    below.mkdir(mode=0o700)
    place = below / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place), max_lag="1h")
    await caught_up(node, place)
    below.rename(folder / "away")
    for number in range(5):
        await node.call("GET", f"secret/data/old{number}")
    url = node.settings.database_url
    await sql(url, "UPDATE audit_entries SET at = at - 7200000000 WHERE path LIKE 'secret/data/old%'")
    await ok(node, "POST", "secret/data/new", {"data": {}})
    (folder / "away").rename(below)
    found = await caught_up(node, place)
    assert not [entry for entry in found if "old" in entry["path"]]
    assert [entry for entry in found if entry["path"] == "secret/data/new"]
    noted = (await entries(url, operation="audit.sink.skip"))[0]
    assert noted["detail"]["count"] >= 5
    assert noted["path"] == "sys/audit/local"
    assert (await state(node, "local"))["skipped"] == noted["detail"]["count"]


async def test_a_tampered_entry_is_marked(node: Node, folder: Path) -> None:
    """An entry that was edited before it was delivered arrives marked, as does one after a removed one."""
    below = folder / "below"
    below.mkdir(mode=0o700)
    place = below / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await caught_up(node, place)
    below.rename(folder / "away")
    for name in ("a", "b", "c", "d"):
        await node.call("GET", f"secret/data/{name}")
    url = node.settings.database_url
    await sql(url, "UPDATE audit_entries SET actor = 'token:x:y' WHERE path = 'secret/data/a'")
    await sql(url, "DELETE FROM audit_entries WHERE path = 'secret/data/c'")
    (folder / "away").rename(below)
    found = {entry["path"]: entry["integrity"] for entry in await caught_up(node, place)}
    assert {path: found.get(f"secret/data/{path}") for path in "abcd"} == {
        "a": "broken",
        "b": "ok",
        "c": None,
        "d": "broken",
    }


async def test_syslog(node: Node, folder: Path) -> None:
    """Each entry is one datagram with facility, severity and tag; no name in it forges a line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(folder / "log"))
        daemon.setblocking(False)
        await enable(node, "log", "syslog", facility="LOCAL3", tag="hub")
        await node.call("GET", "secret/data/a%E2%80%A8b")
        await node.call("GET", "secret/data/last")
        texts: list[str] = []
        while not texts or "secret/data/last" not in texts[-1]:
            async with asyncio.timeout(20):
                texts.append((await asyncio.get_running_loop().sock_recv(daemon, 1 << 16)).decode())
    for text in texts:
        head, _, rest = text.partition("]: ")
        assert head == f"<{19 * 8 + 6}>hub[{os.getpid()}"
        assert rest.isprintable()
        assert json.loads(rest)["hash"]


async def test_an_entry_that_no_datagram_holds(node: Node, folder: Path) -> None:
    """Of an entry that is too large for syslog all but the detail is sent, and what comes after it, once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(folder / "log"))
        daemon.setblocking(False)
        await enable(node, "log", "syslog")
        await fill_ledger(node, 1, detail=json.dumps({"long": "x" * (1 << 23)}))
        await node.call("GET", "secret/data/last")
        found: list[dict[str, Any]] = []
        while not found or found[-1]["path"] != "secret/data/last":
            async with asyncio.timeout(20):
                text = (await asyncio.get_running_loop().sock_recv(daemon, 1 << 20)).decode()
            found.append(json.loads(text.partition("]: ")[2]))
    places = [(entry["stream"], entry["number"]) for entry in found]
    assert len(set(places)) == len(places)
    (large,) = [entry for entry in found if entry["path"] == "secret/data/filler"]
    assert large["detail"] == {"left_out": f"{(1 << 23) + 11} bytes"}
    assert large["hash"]


async def test_as_vault_clients_do_it(node: Node, folder: Path) -> None:
    """Hvac enables, lists, asks for hashes and disables audit devices."""
    place = folder / "vault.log"

    def enabled(client: hvac.Client) -> Any:
        client.sys.enable_audit_device(
            device_type="file",
            description="ours",
            options={"file_path": str(place), "log_raw": "false", "mode": "0600", "format": "json"},
        )
        return client.sys.list_enabled_audit_devices()

    found = await with_client(node, enabled)
    assert found["data"]["file/"]["type"] == "file"
    assert found["file/"]["options"]["file_path"] == str(place)
    assert found["file/"]["description"] == "ours"
    await ok(node, "POST", "secret/data/x", {"data": {"password": "hunter2"}})
    known = await with_client(node, lambda c: c.sys.calculate_hash(path="file", input_to_hash="hunter2"))
    text = json.dumps(await caught_up(node, place))
    assert known["data"]["hash"] in text
    assert "hunter2" not in text

    def disabled(client: hvac.Client) -> Any:
        client.sys.disable_audit_device(path="file")
        return client.sys.list_enabled_audit_devices()

    assert (await with_client(node, disabled))["data"] == {}
    size = place.stat().st_size
    await ok(node, "GET", "secret/data/x")
    await asyncio.sleep(2.5)
    assert place.stat().st_size == size
    left = await sql(node.settings.database_url, "SELECT count(*) AS n FROM audit_sink_positions")
    assert left[0]["n"] == 0


async def test_who_may(node: Node, folder: Path) -> None:
    """Sinks take sudo at their paths; hashes take update and no more; all of it is written down."""
    plain = await node.token("plain", native("**", capabilities=("read", "list", "update", "delete")))
    place = str(folder / "x")
    assert await status(node, "GET", "sys/audit", token=plain) == 403
    body = {"type": "file", "options": {"file_path": place}}
    assert await status(node, "PUT", "sys/audit/x", body, token=plain) == 403
    assert await status(node, "DELETE", "sys/audit/x", token=plain) == 403
    await enable(node, "x", "file", file_path=place)
    assert await status(node, "POST", "sys/audit-hash/x", {"input": "v"}, token=plain) == 200
    assert await status(node, "POST", "sys/audit-hash/x", {"input": "v"}, token="") == 403
    assert await status(node, "POST", "sys/audit-hash/none", {"input": "v"}) == 400
    url = node.settings.database_url
    denied = [entry["outcome"] for entry in await entries(url, operation="sys.audit.sinks.enable")]
    assert denied == ["denied", "begun", "done"]


async def test_the_command_line(node: Node, folder: Path, tmp_path: Path) -> None:
    """A sink is enabled, listed with how far it is, asked what a value looks like in it, and removed."""
    cli = Cli(node, tmp_path)
    place = folder / "ledger.jsonl"
    words = ("audit", "sink", "enable", "local", "--type", "file", "--description", "for people")
    assert "file_path" in await cli(*words, code=1)
    assert await cli(*words, f"file_path={place}") == "The sink local gets every entry from now on.\n"
    await put(node, "app/db", {"password": "correct horse"})
    entry = next(one for one in await caught_up(node, place) if one["path"] == "secret/data/app/db")
    found = await cli.json("audit", "sink", "list")
    assert (found["local/"]["type"], found["local/"]["description"]) == ("file", "for people")
    assert "local" in await cli("audit", "sink", "list")
    (tmp_path / "value").write_text("correct horse\n")
    told = await cli.json("audit", "sink", "hash", "local", "--file", str(tmp_path / "value"))
    assert told["hash"] in json.dumps(entry)
    assert "unknown audit backend" in await cli("audit", "sink", "hash", "other", stdin="x", code=1)
    assert await cli("audit", "sink", "disable", "local") == "Sink local is deleted.\n"
    assert await cli.json("audit", "sink", "list") == {}
    assert place.exists()
