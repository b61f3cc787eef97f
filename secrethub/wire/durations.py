"""Durations and instants in the spellings that Vault's clients send and expect.

In: whole seconds as a number, ``"90"``, ``"1h30m"``, ``"1.5h"``, ``"768h"``, ``"1d"``. Out: whole
seconds, or Go's spelling (``"1h30m0s"``). Instants are RFC 3339 in UTC with up to nine digits of
fraction; :data:`ZERO_TIME` is Go's zero time and means "never".

A fraction of a second is refused rather than rounded: rounding ``"500ms"`` down would turn a short
limit into 0, which means "no limit" in many fields.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from secrethub.errors import InvalidRequest

MAX_SECONDS = 9_223_372_036
"""What Go's 64-bit count of nanoseconds can hold: about 292 years."""

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time."""

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_MAX_TEXT = 64
_DIGITS = re.compile(r"[0-9]+")
_UNIT = "(ns|us|µs|μs|ms|s|m|h|d)"
_ONE_TERM = re.compile(rf"([0-9]*)\.?([0-9]*){_UNIT}")
# Every term has a digit, so there is one way to read a text and no backtracking ("msmsms…").
_TERMS = re.compile(rf"(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+){_UNIT})+")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:(Z)|([+-])([0-9]{2}):([0-9]{2}))"
)


def parse_duration(value: object) -> int:
    """Read a duration as a client sent it.

    Args:
        value: an integer (seconds), a float with a whole value, or a string: ``""`` (0), digits
            (seconds), or terms of a number and a unit (``ns us µs ms s m h d``).

    Returns:
        Whole seconds, from 0 to :data:`MAX_SECONDS`.

    Raises:
        InvalidRequest: another type (booleans too), negative, not whole seconds, or too long.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InvalidRequest(f"a duration is a number of seconds or a string, not {_kind(value)}")
    if isinstance(value, str):
        return _bounded(_parse_text(value))
    if isinstance(value, float):
        if not value.is_integer():
            raise InvalidRequest("a duration given as a number is in whole seconds")
        value = int(value)
    return _bounded(value)


def format_go_duration(seconds: int) -> str:
    """Return whole seconds as Go prints a duration: ``"0s"``, ``"30m0s"``, ``"768h0m0s"``.

    Raises:
        ValueError: ``seconds`` is negative.
    """
    if seconds < 0:
        raise ValueError("a duration is not negative")
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    if minutes:
        return f"{minutes}m{rest}s"
    return f"{rest}s"


def format_rfc3339(instant: datetime | None) -> str:
    """Return an instant as Go prints it: UTC, ``Z``, trailing zeros of the fraction left out.

    Args:
        instant: timezone-aware, or None for :data:`ZERO_TIME`.

    Raises:
        ValueError: ``instant`` has no timezone.
    """
    if instant is None:
        return ZERO_TIME
    if instant.tzinfo is None:
        raise ValueError("an instant needs a timezone")
    text = instant.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def parse_rfc3339(text: str) -> datetime | None:
    """Read an RFC 3339 instant; digits beyond microseconds are cut off.

    Returns:
        The instant in UTC, or None for :data:`ZERO_TIME`.

    Raises:
        InvalidRequest: not RFC 3339, or not a date that exists.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidRequest("a time is written as in RFC 3339, for example 2030-01-31T12:00:00Z")
    if text == ZERO_TIME:
        return None
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    microsecond = int((match[7] or "").ljust(9, "0")[:6])
    try:
        zone = UTC if match[8] else _offset(match[9], int(match[10]), int(match[11]))
        return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest("this time does not exist") from exc


def _offset(sign: str, hours: int, minutes: int) -> timezone:
    if minutes > 59:
        raise ValueError("minutes of an offset are below 60")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if sign == "-" else offset)


def _parse_text(text: str) -> int:
    if not text:
        return 0
    if len(text) > _MAX_TEXT:
        raise InvalidRequest("a duration is at most 64 characters long")
    if text.startswith("-"):
        raise InvalidRequest("a duration is not negative")
    if _DIGITS.fullmatch(text):
        return int(text)
    if not _TERMS.fullmatch(text):
        raise InvalidRequest("a duration is written like 90, 90s, 1h30m, 1.5h or 1d")
    nanoseconds = 0
    for whole, fraction, unit in _ONE_TERM.findall(text):
        scaled, remainder = divmod(int(whole + fraction) * _NANOSECONDS[unit], 10 ** len(fraction))
        if remainder:
            raise InvalidRequest("a duration is not finer than a nanosecond")
        nanoseconds += scaled
    seconds, remainder = divmod(nanoseconds, 1_000_000_000)
    if remainder:
        raise InvalidRequest("a duration is in whole seconds")
    return seconds


def _bounded(seconds: int) -> int:
    if seconds < 0:
        raise InvalidRequest("a duration is not negative")
    if seconds > MAX_SECONDS:
        raise InvalidRequest("a duration is at most 292 years")
    return seconds


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    return "null" if value is None else f"a value of type {type(value).__name__}"
