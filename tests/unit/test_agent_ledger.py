"""The local ledger of what was handed out without Core."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from agent.grants import Peer
from agent.ledger import LocalLedger
from secrethub.errors import Misconfigured, Unavailable

PEER = Peer(pid=7, uid=1000, gids=frozenset())


def note(ledger: LocalLedger, path: str = "secrets/a") -> None:
    """Write one line."""
    ledger.note(PEER, "uid=1000", path, 3, "cache")


def lines(folder: Path) -> list[dict[str, object]]:
    """Return all lines, the older file first."""
    texts = [folder / "handed-out.1.jsonl", folder / "handed-out.jsonl"]
    return [json.loads(line) for file in texts if file.exists() for line in file.read_text().splitlines()]


def test_a_line_says_who_got_what(tmp_path: Path) -> None:
    """Each line has a number, the time, the application, the process, path, version and source."""
    ledger = LocalLedger(tmp_path)
    note(ledger)
    (line,) = lines(tmp_path)
    del line["at"]
    assert line == {
        "number": 1,
        "application": "uid=1000",
        "uid": 1000,
        "pid": 7,
        "path": "secrets/a",
        "version": 3,
        "source": "cache",
    }
    assert stat.S_IMODE((tmp_path / "handed-out.jsonl").stat().st_mode) == 0o600
    ledger.close()


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """A new process counts on, also behind a line that a crash cut off."""
    for _run in range(3):
        ledger = LocalLedger(tmp_path)
        note(ledger)
        ledger.close()
    with (tmp_path / "handed-out.jsonl").open("a") as file:
        file.write('{"number": 4, "at"')
    ledger = LocalLedger(tmp_path)
    note(ledger)
    ledger.close()
    texts = (tmp_path / "handed-out.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in texts if line.endswith("}")] == [1, 2, 3, 4]
    assert len(texts) == 5


def test_its_size_is_bounded_and_a_gap_shows(tmp_path: Path) -> None:
    """Two files of bounded size; the newest lines are there, without a gap among them."""
    ledger = LocalLedger(tmp_path, largest=2_000)
    for number in range(200):
        note(ledger, f"secrets/{number}")
    ledger.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4_000
    numbers = [line["number"] for line in lines(tmp_path)]
    assert numbers == list(range(200 - len(numbers) + 1, 201))
    assert len(numbers) > 10


def test_without_a_line_there_is_no_answer(tmp_path: Path) -> None:
    """When the line cannot be written, the caller hears of it."""
    ledger = LocalLedger(tmp_path)
    os.close(ledger._file)
    with pytest.raises(Unavailable):
        note(ledger)


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """The ledger does not write through a symlink."""
    (tmp_path / "handed-out.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match="symbolic"):
        LocalLedger(tmp_path)
