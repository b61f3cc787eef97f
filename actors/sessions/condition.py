"""How a connected agent does, as far as it is kept: numbers, whatever the agent said."""

from __future__ import annotations

from dataclasses import dataclass

from secrethub.wire.messages import Status


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
    """Return what is kept of a report. Its texts are the agent's and may be long; they are let go."""
    failing = sum(file.error is not None or not file.rendered for file in status.templates)
    return Condition(cached=status.cached, files=len(status.templates), failing=failing)
