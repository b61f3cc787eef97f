"""How a secret's head follows from the one before, and which settings there are. Pure.

What holds is the secret's own setting, else the mount's, else the default; for the time after which a
version is deleted the shorter of both, as in Vault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from secrethub.errors import CasMismatch, InvalidRequest
from secrethub.storage.kv import Head, State
from secrethub.wire.durations import format_go_duration, parse_duration

DEFAULT_VERSIONS = 10
MOST_VERSIONS = 1000
"""Each write rewrites the states of all versions that are kept, some forty bytes a version."""

NEVER = -1
"""In place of seconds in a mount's settings: versions are not deleted by themselves, whatever secrets say."""

_MICROS = 1_000_000
_MOST_KEYS = 64
_KEY_BYTES = 128
_VALUE_BYTES = 512
_FAILED = "custom_metadata validation failed"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a mount.

    Attributes:
        max_versions: versions that are kept of each secret, 0 for the default.
        cas_required: whether every write must say which version it follows.
        delete_version_after: seconds that versions are readable; 0 for ever, :data:`NEVER` for ever
            although a secret may say otherwise.
    """

    max_versions: int = 0
    cas_required: bool = False
    delete_version_after: int = 0


def mount_settings(stored: Mapping[str, Any]) -> Settings:
    """Return the settings that a mount's row holds."""
    return msgspec.convert(stored, Settings)


def new_head(store: str, path: str, identifier: str, now: int) -> Head:
    """Return the head of a new secret without a version."""
    return Head(
        store=store,
        path=path,
        id=identifier,
        revision=1,
        current_version=0,
        oldest_version=1,
        max_versions=0,
        cas_required=False,
        delete_version_after=0,
        custom_metadata="",
        created_at=now,
        updated_at=now,
        versions=(),
    )


def with_version(head: Head, settings: Settings, now: int, *, first: bool, keep: int = 0) -> Head:
    """Return the head after one more version.

    Args:
        head: as it is, or of a new secret.
        settings: of the mount.
        now: microseconds since the epoch.
        first: whether the secret is new, so that ``head`` itself was never written.
        keep: versions to keep whatever the settings say, 0 to ask them.
    """
    current = head.current_version + 1
    keep = keep or head.max_versions or settings.max_versions or DEFAULT_VERSIONS
    oldest = max(head.oldest_version, current - keep + 1)
    made = State(created_at=now, deleted_at=deletion_time(head, settings, now))
    return replace(
        head,
        revision=head.revision if first else head.revision + 1,
        current_version=current,
        oldest_version=oldest,
        updated_at=now,
        versions=(*head.versions[oldest - head.oldest_version :], made),
    )


def deletion_time(head: Head, settings: Settings, now: int) -> int:
    """Return when a version that is made, or brought back, now is deleted by itself; 0 for never."""
    given = [seconds for seconds in (head.delete_version_after, settings.delete_version_after) if seconds]
    if not given or settings.delete_version_after == NEVER:
        return 0
    return now + min(given) * _MICROS


def check_cas(head: Head, settings: Settings, cas: int | None) -> None:
    """Check that a write follows the version that its caller knows.

    Args:
        head: before the write.
        settings: of the mount.
        cas: the version that the caller knows, 0 for none at all; None when he did not say.

    Raises:
        CasMismatch: another one is there, or he has to say.
    """
    if cas is None:
        if head.cas_required or settings.cas_required:
            raise CasMismatch("check-and-set parameter required for this call")
    elif cas != head.current_version:
        raise CasMismatch


def checked_versions(value: int) -> int:
    """Return a number of versions to keep.

    Raises:
        InvalidRequest: it is negative or more than can be kept.
    """
    if not 0 <= value <= MOST_VERSIONS:
        raise InvalidRequest(f"max_versions is between 0 and {MOST_VERSIONS}")
    return value


def mount_duration(value: str | int) -> int:
    """Return how long versions of a mount are readable: seconds, or :data:`NEVER` for a negative duration.

    Raises:
        InvalidRequest: it is no duration.
    """
    text = str(value)
    if text.startswith("-"):
        return NEVER if parse_duration(text[1:]) else 0
    return parse_duration(value)


def duration_text(seconds: int) -> str:
    """Return a duration as Vault shows it in settings."""
    return "-1s" if seconds == NEVER else format_go_duration(seconds)


def checked_metadata(given: Mapping[str, Any]) -> str:
    """Return custom metadata as it is stored: a JSON object of text by text, or nothing.

    Numbers are written as text, as Vault does.

    Raises:
        InvalidRequest: too many fields, one that is empty, too long or not printable, or a value that
            is no text.
    """
    if len(given) > _MOST_KEYS:
        raise InvalidRequest(
            f"{_FAILED}: payload must contain at most {_MOST_KEYS} keys, provided {len(given)}"
        )
    stored = {}
    for name, value in sorted(given.items()):
        text = _as_text(value)
        for part, what, most in ((name, "a key", _KEY_BYTES), (text, "a value", _VALUE_BYTES)):
            if not 0 < len(part.encode("utf-8", "surrogatepass")) <= most:
                raise InvalidRequest(f"{_FAILED}: {what} has between 1 and {most} bytes")
            if not part.isprintable():
                raise InvalidRequest(f"{_FAILED}: {what} contains unprintable characters")
        stored[name] = text
    return msgspec.json.encode(stored).decode() if stored else ""


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise InvalidRequest(f"{_FAILED}: a value is no text")
