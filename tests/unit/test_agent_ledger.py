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


def note(
    ledger: LocalLedger, path: str = "secrets/a", application: str = "uid=1000", peer: Peer = PEER
) -> None:
    """Hand a secret out."""
    ledger.note(peer, application, path, 3, "cache")


def lines(state: Path, application: str = "uid=1000") -> list[dict[str, object]]:
    """Return all lines of an application, the older file first."""
    texts = sorted((state / "handed-out").iterdir(), key=lambda file: len(file.name), reverse=True)
    found = [json.loads(line) for file in texts for line in file.read_text().splitlines()]
    return [line for line in found if line["application"] == application]


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
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "handed-out").iterdir()] == [0o600]
    ledger.close()


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """A new process counts on, also behind a line that a crash cut off."""
    for _run in range(3):
        ledger = LocalLedger(tmp_path)
        note(ledger)
        ledger.close()
    (path,) = (tmp_path / "handed-out").iterdir()
    with path.open("a") as file:
        file.write('{"number": 4, "at"')
    ledger = LocalLedger(tmp_path)
    note(ledger)
    ledger.close()
    texts = path.read_text().splitlines()
    assert [json.loads(line)["number"] for line in texts if line.endswith("}")] == [1, 2, 3, 4]
    assert len(texts) == 5


def test_the_same_is_counted_and_not_written_again(tmp_path: Path) -> None:
    """Repetitions make one more line with their number; another user or secret has its own line."""
    ledger = LocalLedger(tmp_path)
    for _time in range(100):
        note(ledger)
    note(ledger, peer=Peer(pid=8, uid=1001, gids=frozenset()))
    note(ledger, "secrets/b")
    assert [(line["uid"], line["path"]) for line in lines(tmp_path)] == [
        (1000, "secrets/a"),
        (1001, "secrets/a"),
        (1000, "secrets/b"),
    ]
    ledger.close()
    last = lines(tmp_path)[-1]
    assert (last["number"], last["path"], last["again"]) == (4, "secrets/a", 98)


def test_after_a_while_the_count_is_written(tmp_path: Path) -> None:
    """A repetition is on disk with the next line after its time, also one about something else."""
    ledger = LocalLedger(tmp_path, merged=0.0)
    for _time in range(3):
        note(ledger)
    assert len(lines(tmp_path)) == 3
    ledger.close()


def test_its_size_is_bounded_and_what_goes_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two files of bounded size hold the newest lines without a gap; each file that goes is counted."""
    ledger = LocalLedger(tmp_path, largest=2_000)
    for number in range(200):
        note(ledger, f"secrets/{number}")
    ledger.close()
    assert sum(file.stat().st_size for file in (tmp_path / "handed-out").iterdir()) <= 4_000
    numbers = [line["number"] for line in lines(tmp_path)]
    assert numbers == list(range(200 - len(numbers) + 1, 201))
    assert len(numbers) > 10
    gone = [record.__dict__["lines"] for record in caplog.records]
    assert sum(gone) == 200 - len(numbers)


def test_one_application_cannot_push_out_anothers_lines(tmp_path: Path) -> None:
    """Whoever asks for much turns over its own files only."""
    ledger = LocalLedger(tmp_path, largest=2_000)
    note(ledger, application="uid=2000")
    for number in range(200):
        note(ledger, f"secrets/{number}")
    ledger.close()
    assert [line["path"] for line in lines(tmp_path, "uid=2000")] == ["secrets/a"]


def test_without_a_line_there_is_no_answer(tmp_path: Path) -> None:
    """When the line cannot be written, the caller hears of it."""
    ledger = LocalLedger(tmp_path)
    note(ledger)
    os.close(ledger._trails["uid=1000"]._file)
    with pytest.raises(Unavailable):
        note(ledger, "secrets/b")


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """The ledger does not write through a symlink."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "handed-out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match="symbolic"):
        LocalLedger(tmp_path)
