"""One rotation as a state machine: which step comes next, after success, failure and waiting. Pure.

::

    create → verify → promote → confirm → retire → (done)
       └────────┴────────┘         │
                │ failure          │ deadline, if that is wanted
                ▼                  ▼
              undo ◄───────────────┘        → (undone)

A run is stored after each step, before the next one begins, and every step can be repeated. So whoever finds
a run goes on with its step: if its process died there, the step is done again. Until the new value is
promoted a failure undoes; afterwards the new value is in use, and what is left is done sooner or later.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from secrethub.pauses import growing

Step = Literal["create", "verify", "promote", "confirm", "retire", "undo"]
Trigger = Literal["schedule", "request"]
Outcome = Literal["done", "unconfirmed", "undone"]
"""``unconfirmed``: done, but not everybody had said in time that he uses the new value."""

MOST_ATTEMPTS = 6
"""Failures of one step, one after the other, after which a run is undone."""

LONGEST_PAUSE = 60.0
_FIRST_PAUSE = 0.5
_NEXT: dict[Step, Step] = {"create": "verify", "verify": "promote", "promote": "confirm", "confirm": "retire"}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation that is under way.

    Attributes:
        number: counts the rotations of a secret.
        step: what is to be done next.
        trigger: why it was begun.
        began_at: microseconds since the epoch.
        old_version: of the secret when it began, 0 when there was none.
        new_version: that was promoted, 0 before.
        attempts: failures of this step so far.
        waiting_since: since when this attempt waits for somebody to do it, microseconds since the epoch; 0
            when nobody was asked yet.
        deadline: until when confirmations are waited for, microseconds since the epoch; 0 before.
        missing: who had not confirmed at the deadline.
        reason: why it is undone, or what failed last; no secret.
    """

    number: int
    step: Step = "create"
    trigger: Trigger = "schedule"
    began_at: int
    old_version: int = 0
    new_version: int = 0
    attempts: int = 0
    waiting_since: int = 0
    deadline: int = 0
    missing: int = 0
    reason: str = ""

    @property
    def promoted(self) -> bool:
        """Whether the new value has been in use."""
        return self.new_version > 0

    @property
    def outcome(self) -> Outcome:
        """How it ends when its step succeeds; only of the last step."""
        if self.step == "undo":
            return "undone"
        return "unconfirmed" if self.missing else "done"


def succeeded(run: Run) -> Run | None:
    """Return the run after its step was done; None when that was the last one."""
    step = _NEXT.get(run.step)
    if step is None:
        return None
    return msgspec.structs.replace(run, step=step, attempts=0, waiting_since=0, reason="")


def failed(run: Run, reason: str, *, final: bool) -> Run:
    """Return the run after its step was not done.

    Args:
        run: as it was.
        reason: why.
        final: whether trying again cannot help.
    """
    attempts = run.attempts + 1
    if run.step in {"create", "verify", "promote"} and (final or attempts >= MOST_ATTEMPTS):
        return undone(run, reason)
    if run.step != "undo":
        run = msgspec.structs.replace(run, reason=reason)
    return msgspec.structs.replace(run, attempts=attempts, waiting_since=0)


def undone(run: Run, reason: str) -> Run:
    """Return the run once it is to be undone."""
    return msgspec.structs.replace(run, step="undo", attempts=0, waiting_since=0, reason=reason)


def awaited(run: Run, now: int) -> Run:
    """Return the run while somebody was asked to do its step and has not said how that went."""
    return msgspec.structs.replace(run, waiting_since=run.waiting_since or now)


def waited(run: Run, missing: int, now: int, *, undo: bool) -> Run | None:
    """Return the run when it need not wait for confirmations any longer; None when it must.

    Args:
        run: at ``confirm``.
        missing: how many use the secret and have not confirmed its new version.
        now: microseconds since the epoch.
        undo: whether it is undone when the deadline passes, instead of ended.
    """
    if not missing:
        return succeeded(run)
    if now < run.deadline:
        return None
    late = msgspec.structs.replace(run, missing=missing)
    return undone(late, "not confirmed in time") if undo else succeeded(late)


def pause(run: Run, part: float) -> float:
    """Return how many seconds to wait before a step is tried again.

    Args:
        run: after the failure.
        part: random, from 0 to 1.
    """
    return growing(_FIRST_PAUSE, run.attempts, LONGEST_PAUSE, part)
