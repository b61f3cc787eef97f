"""The steps of a rotation: pure rules."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.rotation.steps import LONGEST_PAUSE, MOST_ATTEMPTS, Run, failed, pause, succeeded, waited

EVENTS = st.lists(st.sampled_from(["ok", "later", "never", "silent", "late"]), max_size=60)


def _after(run: Run, event: str, *, undo: bool) -> Run | None:
    """Return the run after one attempt at its step."""
    if run.step == "confirm":
        now = run.deadline + (1 if event == "late" else -1)
        return waited(run, 0 if event == "ok" else 2, now, undo=undo) or run
    if event != "ok":
        return failed(run, event, final=event == "never")
    if run.step == "promote":
        run = msgspec.structs.replace(run, new_version=run.old_version + 1, deadline=1000)
    return succeeded(run)


@given(events=EVENTS, undo=st.booleans())
def test_every_run_ends_in_order(events: list[str], undo: bool) -> None:
    """Whatever fails, nothing is retired before it was promoted, nor undone after the old one may be gone."""
    order = ["create", "verify", "promote", "confirm", "retire"]
    run = Run(number=1, began_at=0, old_version=3)
    for event in [*events, *["ok"] * 8]:
        after = _after(run, event, undo=undo)
        if after is None:
            break
        if after.step != run.step:
            if after.step == "undo":
                assert run.step in {"create", "verify", "promote"} or (run.step == "confirm" and undo)
                assert after.reason
            else:
                assert order.index(after.step) == order.index(run.step) + 1
            assert after.attempts == 0
        assert after.attempts < MOST_ATTEMPTS or after.step in {"retire", "undo"}
        run = after
    else:
        raise AssertionError("it never ended")
    assert run.step in {"retire", "undo"}
    assert run.promoted or run.outcome == "undone"


@given(attempts=st.integers(0, 10_000), part=st.floats(0, 1))
def test_pauses_grow_and_are_bounded(attempts: int, part: float) -> None:
    """A step that keeps failing is tried again, but never without a pause or after more than a minute."""
    waits = pause(Run(number=1, began_at=0, attempts=attempts), part)
    assert 0.25 <= waits <= LONGEST_PAUSE


@pytest.mark.parametrize(
    ("undo", "step", "outcome"), [(False, "retire", "unconfirmed"), (True, "undo", "undone")]
)
def test_a_deadline_ends_the_waiting(undo: bool, step: str, outcome: str) -> None:
    """Whoever does not confirm in time is counted, and the run ends or is undone as it was asked for."""
    run = Run(number=1, step="confirm", began_at=0, new_version=2, deadline=100)
    assert waited(run, 3, 99, undo=undo) is None
    late = waited(run, 3, 100, undo=undo)
    assert late is not None
    assert (late.step, late.missing, late.outcome) == (step, 3, outcome)
