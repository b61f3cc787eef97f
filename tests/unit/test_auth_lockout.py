"""When a name is locked, for how long, and what is kept of passwords."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from secrethub.auth.lockout import DURATION, RESET, THRESHOLD, Failures, Lockout, attempted
from secrethub.auth.passwords import STAND_IN, fits, make_password
from secrethub.crypto.keyring import Keyring

START = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.integers(min_value=0, max_value=3000), max_size=40))
def test_never_more_than_the_threshold_within_the_time(pauses: list[int]) -> None:
    """However attempts are spread, no span of the lock's length sees more than the threshold."""
    now, known, counted = START, None, []
    for pause in pauses:
        now += timedelta(seconds=pause)
        if known is not None and known.locked(now):
            continue
        known = attempted(known, "auth/userpass/", "ada", now)
        counted.append(now)
    for first, last in zip(counted, counted[THRESHOLD:], strict=False):
        assert (last - first).total_seconds() >= min(DURATION, RESET)


def test_the_lock_ends_by_itself() -> None:
    """After the threshold nobody gets in for a while, then counting begins anew."""
    known: Failures | None = None
    for _ in range(THRESHOLD):
        assert known is None or not known.locked(START)
        known = attempted(known, "auth/userpass/", "ada", START)
    assert known is not None
    assert known.locked(START)
    assert known.locked(START + timedelta(seconds=DURATION - 1))
    later = START + timedelta(seconds=DURATION)
    assert not known.locked(later)
    assert attempted(known, "auth/userpass/", "ada", later).count == 1


def test_a_mount_s_own_rules() -> None:
    """Threshold and times are the mount's; where it locks nobody, nobody is locked."""
    rules = Lockout(threshold=2, duration=10, reset=60)
    known = attempted(None, "auth/userpass/", "ada", START, rules)
    assert not known.locked(START, rules)
    known = attempted(known, "auth/userpass/", "ada", START, rules)
    assert known.locked(START + timedelta(seconds=9), rules)
    assert not known.locked(START + timedelta(seconds=10), rules)
    assert not known.locked(START, Lockout(threshold=2, disabled=True))
    once = attempted(None, "auth/userpass/", "ada", START, rules)
    assert attempted(once, "auth/userpass/", "ada", START + timedelta(seconds=60), rules).count == 1


def test_passwords() -> None:
    """A password fits what was kept of it, with the keys it was kept under, and nothing else does."""
    keyring, other = Keyring.generate(), Keyring.generate()
    kept = make_password(keyring, "correct horse")
    again = make_password(keyring, "correct horse")
    assert (kept.salt, kept.digest) != (again.salt, again.digest)
    assert fits(keyring, "correct horse", kept)
    assert not fits(keyring, "correct horsf", kept)
    assert not fits(other, "correct horse", kept)
    assert not fits(keyring, "", STAND_IN)
    assert kept.digest not in repr(kept)
