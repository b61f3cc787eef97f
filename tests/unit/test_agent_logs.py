"""The agent's log: one JSON object a line, and no flood."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from agent import logs


class Log:
    """A log of its own, with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.written = io.StringIO()
        self.handler = logs.BoundedHandler(self.written, lambda: self.now)
        self.handler.setFormatter(logs.JsonFormatter())
        self.logger = logging.getLogger("agent.test")
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self.handler)

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written."""
        return [json.loads(line) for line in self.written.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """A log."""
    made = Log()
    yield made
    made.logger.removeHandler(made.handler)
    made.handler.close()


def test_a_flood_is_summed_up(log: Log) -> None:
    """The first lines are written, the last of them says that it goes on, and later comes the number."""
    for number in range(1_000):
        log.logger.info("not read again", extra={"path": f"secrets/{number}"})
    assert len(log.lines()) == logs.MOST
    assert "further" in log.lines()[-1]
    assert log.lines()[0]["path"] == "secrets/0"
    log.now += logs.WITHIN
    log.logger.info("something else")
    summary, other = log.lines()[-2:]
    assert (summary["message"], summary["left_out"]) == ("not read again", 1_000 - logs.MOST)
    assert other["message"] == "something else"


def test_what_was_counted_is_written_at_the_end(log: Log) -> None:
    """An agent that stops says what it left out."""
    for _number in range(logs.MOST + 5):
        log.logger.warning("refused", extra={"uid": 7})
    log.handler.close()
    assert (log.lines()[-1]["left_out"], log.lines()[-1]["uid"]) == (5, 7)


def test_one_users_flood_hides_nobody_else(log: Log) -> None:
    """Lines about another user or another file are written all the same, and every error is."""
    for _number in range(1_000):
        log.logger.warning("refused", extra={"uid": 7})
    log.logger.warning("refused", extra={"uid": 8})
    assert log.lines()[-1]["uid"] == 8
    before = len(log.lines())
    for number in range(100):
        log.logger.info("file written", extra={"destination": f"/run/{number}"})
        log.logger.error("no file written yet")
    assert len(log.lines()) == before + 200
