"""An export, verified without Core: every kind of tampering with the file is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secrethub.audit.chain import Bad, Chain
from secrethub.audit.checkpoint import sign
from secrethub.audit.event import StreamHead, prune_detail
from secrethub.audit.export_file import entry_line
from secrethub.audit.export_reader import read_public_key, verify_files
from secrethub.audit.verification import LedgerReport
from secrethub.audit.witness import Witness, read_witness
from secrethub.errors import InvalidRequest
from secrethub.storage.checkpoints import newest_checkpoint
from tests.gateway.behind import until
from tests.gateway.conftest import Node
from tests.gateway.shell import Cli, cli
from tests.gateway.test_ledger_tamper import pulses, settled, stream

__all__ = ["cli", "pulses", "stream"]

Lines = list[dict[str, Any]]


@pytest.fixture
async def exported(node: Node, stream: str, tmp_path: Path) -> tuple[Path, bytes]:
    """A file with the whole ledger, and the public key."""
    await until(lambda: settled(node.settings.database_url))
    answer = await node.call("GET", "sys/audit/export")
    assert answer.status_code == 200, answer.text
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(answer.content)
    pem = (await node.call("GET", "sys/audit/public-key")).json()["data"]["public_key"]
    return path, read_public_key(pem.encode())


def changed(path: Path, change: Callable[[Lines], Lines | None]) -> Path:
    """Write the file again with its lines changed; the count at the end fits."""
    lines: Lines = [json.loads(line) for line in path.read_text().splitlines()]
    result = change(lines)
    lines = lines if result is None else result
    lines[-1]["entries"] = sum(line["type"] == "entry" for line in lines)
    other = path.with_name("changed.jsonl")
    other.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return other


async def test_an_export_as_it_is(exported: tuple[Path, bytes], stream: str) -> None:
    """An untouched export verifies, compressed or not, and every entry but the last ones is proven."""
    path, public = exported
    report = verify_files([path], public)
    assert report.ok
    assert report.checkpoints >= 4
    assert report.entries > 25
    assert report.unproven < 5
    packed = path.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert verify_files([packed], public) == report
    assert isinstance(report, LedgerReport)


async def test_a_witness_of_an_export(node: Node, exported: tuple[Path, bytes]) -> None:
    """An export whose newest checkpoints were cut off with what they vouch for is found out."""
    path, public = exported
    newest = await newest_checkpoint(node.process.core.database)
    assert newest is not None
    witness = Witness(public, newest)
    assert verify_files([path], public, witness=witness).checkpoints <= newest.checkpoint.sequence
    number = verify_files([path], public).checkpoints

    def cut(lines: Lines) -> Lines:
        kept = [line for line in lines if line["type"] != "checkpoint" or line["sequence"] < number - 1]
        heads = {head[0]: head[1] for line in kept for head in line.get("heads", ())}
        return [line for line in kept if line["type"] != "entry" or line["number"] <= heads[line["stream"]]]

    other = changed(path, cut)
    assert verify_files([other], public).ok
    report = verify_files([other], public, witness=witness)
    assert report.first_bad == Bad("checkpoints", number - 1, "truncated")
    key = Ed25519PrivateKey.generate()
    forged = Witness(key.public_key().public_bytes_raw(), sign(key, newest.checkpoint))
    for wrong in (forged, Witness(public, forged.signed)):
        with pytest.raises(InvalidRequest, match="another ledger"):
            verify_files([path], public, witness=wrong)


async def test_a_node_as_a_witness_on_the_command_line(
    node: Node, cli: Cli, exported: tuple[Path, bytes], tmp_path: Path
) -> None:
    """What a node's own file has seen must be in an export; another ledger's file is refused."""
    older, key = exported[0], tmp_path / "notary.pem"
    key.write_text(await cli("audit", "public-key"))
    for number in range(3):
        await node.call("POST", f"secrets/later/{number}", json={"data": {"k": "v"}})
    await until(lambda: settled(node.settings.database_url))
    newest = await newest_checkpoint(node.process.core.database)
    assert newest is not None
    witness = tmp_path / "kept.json"
    seen = 0

    async def has_seen() -> bool:
        nonlocal seen
        for own in Path(node.settings.state_dir).glob("witness-*"):
            witness.write_bytes(own.read_bytes())
            seen = read_witness(witness.read_bytes()).signed.checkpoint.sequence
        return seen >= newest.checkpoint.sequence

    await until(has_seen)
    export = tmp_path / "later.jsonl"
    export.write_bytes((await node.call("GET", "sys/audit/export")).content)
    how = ("audit", "verify", "--public-key", str(key), "--witness")
    found = await cli.json(*how, str(witness), "--file", str(export))
    assert found["ok"]
    assert found["checkpoints"] >= seen
    said = await cli(*how, str(witness), "--file", str(older), code=1)
    assert "truncated" in said
    other = Ed25519PrivateKey.generate()
    forged = Witness(other.public_key().public_bytes_raw(), sign(other, newest.checkpoint))
    witness.write_bytes(msgspec.json.encode(forged))
    assert "another ledger" in await cli(*how, str(witness), "--file", str(export), code=1)
    assert "No such file" in await cli(*how, str(tmp_path / "none.json"), "--file", str(export), code=1)
    assert "goes with --file" in await cli("audit", "verify", "--witness", str(witness), code=2)


def _entry(lines: Lines, stream: str, number: int) -> int:
    return next(
        place
        for place, line in enumerate(lines)
        if (line.get("stream"), line.get("number")) == (stream, number)
    )


async def test_tampered_files(exported: tuple[Path, bytes], stream: str) -> None:
    """Edited, deleted, cut, moved, inserted and doubled records, and replaced checkpoints, are all named."""
    path, public = exported

    def bad(change: Callable[[Lines], Lines | None]) -> Bad | None:
        return verify_files([changed(path, change)], public).first_bad

    def edit(lines: Lines) -> None:
        lines[_entry(lines, stream, 7)]["actor"] = "nobody"

    def delete(lines: Lines) -> None:
        del lines[_entry(lines, stream, 7)]

    def cut(lines: Lines) -> Lines:
        return [line for line in lines if line.get("stream") != stream or line["number"] <= 12]

    def swap(lines: Lines) -> None:
        one, other = _entry(lines, stream, 6), _entry(lines, stream, 9)
        lines[one], lines[other] = lines[other], lines[one]

    def insert(lines: Lines) -> None:
        place = _entry(lines, stream, 6)
        lines.insert(place, {**lines[place], "path": "x"})

    def replace(lines: Lines) -> None:
        next(line for line in lines if line.get("sequence") == 3)["at"] += 1

    def drop(lines: Lines) -> Lines:
        return [line for line in lines if line.get("sequence") != 2]

    assert bad(edit) == Bad(stream, 7, "edited")
    assert bad(delete) == Bad(stream, 7, "gap")
    assert bad(cut) == Bad(stream, 13, "truncated")
    assert bad(swap) == Bad(stream, 6, "reordered")
    assert bad(insert) == Bad(stream, 6, "edited")
    assert bad(replace) == Bad("checkpoints", 3, "bad signature")
    assert bad(drop) == Bad("checkpoints", 2, "gap")
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert verify_files([path], other).first_bad == Bad("checkpoints", 1, "bad signature")


async def test_a_beginning_that_was_removed(exported: tuple[Path, bytes], stream: str) -> None:
    """That a stream begins later, and checkpoints do, is not taken from whoever wrote the file."""
    path, public = exported

    def bad(change: Callable[[Lines], Lines | None]) -> Bad | None:
        return verify_files([changed(path, change)], public).first_bad

    def begun_after(lines: Lines, number: int, first: int) -> None:
        """Let the stream begin with entry ``first``, after what is said to be entry ``number``."""
        place = _entry(lines, stream, first)
        head = lines[place - 1]["hash"]
        lines.insert(place, {"type": "base", "stream": stream, "number": number, "head": head})
        del lines[_entry(lines, stream, 1) : place]

    def later(lines: Lines) -> None:
        begun_after(lines, 6, 7)

    def said_to_be_pruned(lines: Lines) -> None:
        later(lines)
        last = [line for line in lines if line["type"] == "entry" and line["stream"] == stream][-1]
        base = StreamHead(stream, 6, bytes.fromhex(lines[_entry(lines, stream, 6)]["head"]))
        chain = Chain(stream, b"none", last["number"], bytes.fromhex(last["hash"]))
        forged = chain.append(at=1, kind="prune", detail=prune_detail([base], {}))
        lines.insert(lines.index(last) + 1, json.loads(entry_line(forged)))

    def unlooked_at(lines: Lines) -> None:
        lines[_entry(lines, stream, 9)]["actor"] = "nobody"
        begun_after(lines, 1 << 40, 2)

    def without_a_stream(lines: Lines) -> Lines:
        # The seal's own: as if it had ended before the checkpoints that are left.
        other = next(line["stream"] for line in lines if line["type"] == "entry" and line["stream"] != stream)
        firsts = [line for line in lines if other in {head[0] for head in line.get("heads", ())}]
        number = max(line["sequence"] for line in firsts)
        return [
            line for line in lines if line.get("sequence", 1 << 40) > number and line.get("stream") != other
        ]

    def without_checkpoints(lines: Lines) -> Lines:
        return [line for line in lines if line["type"] != "checkpoint"]

    assert bad(later) == Bad(stream, 1, "gap")
    assert bad(said_to_be_pruned) == Bad(stream, 1, "gap")
    assert bad(unlooked_at) == Bad(stream, 2, "duplicate")
    assert bad(without_a_stream) == Bad("checkpoints", 1, "gap")
    with pytest.raises(InvalidRequest, match="no checkpoint"):
        bad(without_checkpoints)


async def test_files_that_cannot_be_verified(exported: tuple[Path, bytes], node: Node) -> None:
    """A file that was cut, has gaps on purpose, or is something else, is refused with a reason."""
    path, public = exported
    other = path.with_name("other.jsonl")
    text = path.read_bytes()
    selection = await node.call("GET", "sys/audit/export?operation=kv.read")
    for content in (
        b"",
        b"nonsense\n",
        text[: len(text) // 2],
        text.rsplit(b"\n", 2)[0] + b"\n",
        text + text,
        selection.content,
    ):
        other.write_bytes(content)
        with pytest.raises(InvalidRequest):
            verify_files([other], public)
    for key in (b"", b"x", b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(InvalidRequest):
            read_public_key(key)


async def test_a_file_that_goes_on_from_another(exported: tuple[Path, bytes], stream: str) -> None:
    """Parts of one ledger in their order are verified as one; a later part alone lacks the earlier one."""
    path, public = exported
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    place = _entry(lines, stream, 7)
    header, end = lines[0], lines[-1]
    early = [line for line in lines if line.get("stream") == stream and line["number"] < 7]
    base = {"type": "base", "stream": stream, "number": 6, "head": lines[place - 1]["hash"]}
    late = [line for line in lines[:-1] if line not in early]
    late.insert(late.index(lines[place]), base)
    first, second = path.with_name("1.jsonl"), path.with_name("2.jsonl")
    for file, content in ((first, [header, *early]), (second, late)):
        count = sum(line["type"] == "entry" for line in content)
        whole = [*content, {**end, "entries": count}]
        file.write_text("".join(json.dumps(line) + "\n" for line in whole))
    both = verify_files([first, second], public)
    assert (both.ok, both.elsewhere) == (True, 0)
    assert both.entries == verify_files([path], public).entries
    assert verify_files([second], public).first_bad == Bad(stream, 1, "gap")
