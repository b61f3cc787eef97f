"""How a connected agent does, as far as it is kept: numbers, and a bounded part of what its files lack."""

from __future__ import annotations

from dataclasses import dataclass

from secrethub.storage.agent_reports import Failure, Report
from secrethub.wire.messages import Status, TemplateStatus

NAMED = 20
"""Failing files of an agent that are named."""

_LONGEST = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """The last report of an agent.

    Attributes:
        cached: secrets in its cache.
        files: files that it writes.
        failing: those of them that are not up to date.
    """

    cached: int
    files: int
    failing: int


def condition_of(status: Status) -> Condition:
    """Return the numbers of a report, which are all that a session keeps of it."""
    return Condition(cached=status.cached, files=len(status.templates), failing=len(_failing(status)))


def report_of(status: Status) -> Report:
    """Return what is written down of a report. Its texts are the agent's: they are cut and made printable."""
    failing = _failing(status)
    named = [
        Failure(destination=_plain(file.destination), error=_plain(file.error or ""))
        for file in failing[:NAMED]
    ]
    return Report(files=len(status.templates), failing=len(failing), failures=tuple(named))


def _failing(status: Status) -> list[TemplateStatus]:
    return [file for file in status.templates if file.error is not None or not file.rendered]


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_LONGEST])
