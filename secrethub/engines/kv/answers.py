"""What the operations on secrets answer, for those who read the description of the API."""

from __future__ import annotations

from typing import Any

import msgspec


class VersionMetadata(msgspec.Struct, frozen=True):
    """What is told of a version beside its value.

    Attributes:
        created_time: RFC 3339.
        custom_metadata: of the secret.
        deletion_time: RFC 3339, maybe in the future; empty when it is not deleted.
        destroyed: whether its value is gone for good.
        version: its number.
    """

    created_time: str
    custom_metadata: dict[str, str] | None
    deletion_time: str
    destroyed: bool
    version: int


class VersionAnswer(msgspec.Struct, frozen=True):
    """A version. ``data`` is its value."""

    data: dict[str, Any] | None
    metadata: VersionMetadata


class SubkeysAnswer(msgspec.Struct, frozen=True):
    """The keys of a version, each with those below it or null."""

    subkeys: dict[str, Any] | None
    metadata: VersionMetadata


class VersionState(msgspec.Struct, frozen=True):
    """What is told of a version in the history of a secret; times as in :class:`VersionMetadata`."""

    created_time: str
    deletion_time: str
    destroyed: bool


class MetadataAnswer(msgspec.Struct, frozen=True):
    """A secret's settings and versions, by their numbers. Durations are text such as ``1h0m0s``."""

    cas_required: bool
    created_time: str
    current_version: int
    custom_metadata: dict[str, str] | None
    delete_version_after: str
    max_versions: int
    oldest_version: int
    updated_time: str
    versions: dict[str, VersionState]


class ConfigAnswer(msgspec.Struct, frozen=True):
    """A store's settings."""

    cas_required: bool
    delete_version_after: str
    max_versions: int


class ComparisonAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Two versions beside each other; ``changed`` has for each key ``from`` and ``to``."""

    from_: VersionMetadata
    to: VersionMetadata
    added: dict[str, Any]
    removed: dict[str, Any]
    changed: dict[str, dict[str, Any]]
    unchanged: list[str]


class FoundAnswer(msgspec.Struct, frozen=True):
    """A page of secrets; ``next`` is where the page after it begins, empty at the end."""

    keys: list[str]
    key_info: dict[str, dict[str, Any]]
    next: str


class Reading(msgspec.Struct, frozen=True):
    """A successful read of a secret, as the ledger has it."""

    time: str
    actor: str
    client: str
    door: str
    operation: str
    version: int | None
    request_id: str


class ReadersAnswer(msgspec.Struct, frozen=True):
    """A page of reads, the newest first."""

    reads: list[Reading]
    next: str
