"""The pure parts of agent sessions: when they are pinged, reminded and ended, and who watches what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.sessions.rules import ASK, REMIND, End, Limits, Verdict, examine, renewal_due
from actors.sessions.watches import WatchIndex
from secrethub.wire.close_codes import CloseCode

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits()


def look(
    *,
    greeted: bool = True,
    since_began: float = 0.0,
    since_heard: float = 0.0,
    since_asked: float | None = None,
    sending_for: float | None = None,
    not_after: datetime = NOW + timedelta(days=30),
    due: datetime | None = None,
) -> Verdict:
    """Examine a healthy session apart from what is given."""
    return examine(
        LIMITS,
        greeted=greeted,
        since_began=since_began,
        since_heard=since_heard,
        since_asked=since_asked,
        sending_for=sending_for,
        not_after=not_after,
        due=due,
        now=NOW,
    )


def ended(verdict: Verdict) -> CloseCode | None:
    """Return the code of an ending verdict."""
    return verdict.code if isinstance(verdict, End) else None


def test_a_healthy_session_is_left_alone() -> None:
    """Nothing is done about a session that speaks and is not due."""
    assert look() is None
    assert look(greeted=False) is None


def test_silence_is_asked_about_and_then_ended() -> None:
    """After some silence there is a ping, repeated at the same distance, and then the end."""
    assert look(since_heard=LIMITS.ping_after + 1) is ASK
    assert look(since_heard=LIMITS.ping_after + 5, since_asked=4) is None
    assert look(since_heard=2 * LIMITS.ping_after + 2, since_asked=LIMITS.ping_after + 1) is ASK
    assert ended(look(since_heard=LIMITS.silent + 1, since_asked=20)) == CloseCode.SILENT


def test_a_connection_without_hello_ends() -> None:
    """A connection that never says hello ends sooner than a silent one, whatever else it sends."""
    assert ended(look(greeted=False, since_began=LIMITS.hello + 1)) == CloseCode.SILENT
    assert look(greeted=False, since_heard=LIMITS.hello + 1) is None
    assert look(greeted=True, since_began=LIMITS.hello + 1) is None


def test_a_slow_agent_ends() -> None:
    """A frame that is not taken in time ends the session."""
    assert look(sending_for=LIMITS.slow - 1) is None
    assert ended(look(sending_for=LIMITS.slow + 1)) == CloseCode.TOO_SLOW


def test_an_expired_certificate_ends_its_connection() -> None:
    """The end of the certificate is the end of the connection, greeted or not."""
    assert ended(look(not_after=NOW)) == CloseCode.CERTIFICATE_EXPIRED
    assert ended(look(greeted=False, not_after=NOW)) == CloseCode.CERTIFICATE_EXPIRED


def test_a_due_certificate_is_reminded_of_once() -> None:
    """Reminded when due, not before and not after it was done."""
    assert look(due=NOW) is REMIND
    assert look(due=NOW + timedelta(seconds=1)) is None
    assert look(due=None) is None


@pytest.mark.parametrize(
    ("life", "due_after"),
    [
        (timedelta(days=365), timedelta(days=358)),
        (timedelta(hours=24), timedelta(hours=16)),
        (timedelta(days=21), timedelta(days=14)),
    ],
)
def test_renewal_is_due_late_for_long_and_early_for_short_certificates(
    life: timedelta, due_after: timedelta
) -> None:
    """Seven days before the end of a long life, two thirds into a short one."""
    assert renewal_due(NOW, NOW + life, timedelta(days=7)) == NOW + due_after


class Index(RuleBasedStateMachine):
    """The index against a plain set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.index: WatchIndex[int] = WatchIndex()
        self.pairs: set[tuple[str, int]] = set()

    @rule(key=st.sampled_from("abc"), watcher=st.integers(0, 3))
    def add(self, key: str, watcher: int) -> None:
        """Watch."""
        self.index.add(key, watcher)
        self.pairs.add((key, watcher))

    @rule(key=st.sampled_from("abc"), watcher=st.integers(0, 3))
    def remove(self, key: str, watcher: int) -> None:
        """Watch no more."""
        self.index.remove(key, watcher)
        self.pairs.discard((key, watcher))

    @rule(watcher=st.integers(0, 3))
    def remove_all(self, watcher: int) -> None:
        """End all watches of one."""
        self.index.remove_all("abc", watcher)
        self.pairs = {(k, w) for k, w in self.pairs if w != watcher}

    @invariant()
    def same_pairs(self) -> None:
        """Index and pairs agree."""
        assert len(self.index) == len(self.pairs)
        for key in "abc":
            assert sorted(self.index.watchers(key)) == sorted(w for k, w in self.pairs if k == key)


Index.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestIndex = Index.TestCase
