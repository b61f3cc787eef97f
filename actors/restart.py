"""Restart rules of Erlang/OTP supervisors: what to do when a child has ended.

Pure: strategy, children, crash history and the present instant go in, a decision comes out. No IO, no
clock, no Ray. A supervisor asks :func:`decide` once per child that ended (or failed to start) and
carries the decision out.

Which children come back (``RestartType``):

- ``permanent``: always.
- ``transient``: only when it ended abnormally.
- ``temporary``: never, not even when a sibling's end took it down.

Who is taken down and started with it (``Strategy``):

- ``one_for_one``: nobody else.
- ``rest_for_one``: every child that comes later in the start order.
- ``one_for_all``: every child.

Children are started in ascending ``order`` and stopped in descending order. A supervisor tolerates
``intensity`` restarts within ``period`` seconds; one more, and it gives up: it stops every child and
ends itself, so that its own supervisor decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

RestartType: TypeAlias = Literal["permanent", "transient", "temporary"]
Strategy: TypeAlias = Literal["one_for_one", "rest_for_one", "one_for_all"]

History: TypeAlias = tuple[float, ...]
"""Instants of past restarts on a monotonic clock, in seconds, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSpec:
    """A child as its supervisor knows it.

    Attributes:
        name: unique among its siblings.
        order: position in the start order; children of equal order are independent of each other
            and keep the sequence in which they are given.
        restart: when it comes back.
    """

    name: str
    order: int = 0
    restart: RestartType = "permanent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What a supervisor goes by.

    Attributes:
        strategy: who shares a child's fate.
        intensity: restarts tolerated within ``period``; 0 tolerates none.
        period: seconds, both ends included.
    """

    strategy: Strategy = "one_for_one"
    intensity: int = 1
    period: float = 5.0

    def __post_init__(self) -> None:
        if self.intensity < 0 or self.period <= 0:
            raise ValueError("intensity must not be negative and period must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class Restart:
    """Stop ``stop``, then start ``start``, each in the order given, and remember ``history``.

    ``stop`` may name children that are not running (any more); those are passed over.
    """

    stop: tuple[str, ...]
    start: tuple[str, ...]
    history: History


@dataclass(frozen=True, kw_only=True, slots=True)
class Leave:
    """The child stays down and nobody else is touched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Stop ``stop`` in the order given and end the supervisor itself."""

    stop: tuple[str, ...]
    reason: str


Decision: TypeAlias = Restart | Leave | GiveUp


def start_order(children: Iterable[ChildSpec]) -> tuple[ChildSpec, ...]:
    """Return ``children`` in the order in which they are started."""
    return tuple(sorted(children, key=lambda child: child.order))


def decide(
    rules: Rules,
    children: Iterable[ChildSpec],
    ended: ChildSpec,
    *,
    normal: bool,
    history: History,
    now: float,
) -> Decision:
    """Decide what follows from the end of one child.

    Args:
        rules: the supervisor's rules.
        children: every child of the supervisor, ``ended`` among them. Leave out temporary children
            that have ended: they are forgotten.
        ended: the child that ended, or that failed to start.
        normal: whether it ended on purpose. A failed start is not normal.
        history: what the last :class:`Restart` said, empty at first.
        now: the present instant, on the clock of ``history``.

    Returns:
        What to do. Under ``one_for_one`` this takes no longer with many children.
    """
    if ended.restart == "temporary" or (ended.restart == "transient" and normal):
        return Leave()
    recent = (*(at for at in history if now - at <= rules.period), now)
    if len(recent) > rules.intensity:
        return GiveUp(
            stop=tuple(child.name for child in reversed(start_order(children)) if child.name != ended.name),
            reason=f"{ended.name} ended; more than {rules.intensity} restarts in {rules.period:g} s",
        )
    if rules.strategy == "one_for_one":
        return Restart(stop=(), start=(ended.name,), history=recent)
    affected = start_order(children)
    if rules.strategy == "rest_for_one":
        affected = affected[[child.name for child in affected].index(ended.name) :]
    return Restart(
        stop=tuple(child.name for child in reversed(affected) if child.name != ended.name),
        start=tuple(child.name for child in affected if child.restart != "temporary"),
        history=recent,
    )
