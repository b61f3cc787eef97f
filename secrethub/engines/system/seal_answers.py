"""What the system endpoints answer about the seal, data keys, archives and rotations."""

from __future__ import annotations

from typing import Any

import msgspec


class InitStatusAnswer(msgspec.Struct, frozen=True):
    """Whether the cluster has begun."""

    initialized: bool


class InitAnswer(msgspec.Struct, frozen=True):
    """A cluster's shares, in hexadecimal and base64, and its first token."""

    keys: list[str]
    keys_base64: list[str]
    root_token: str
    recovery_keys: list[str] = []
    recovery_keys_base64: list[str] = []


class HealthAnswer(msgspec.Struct, frozen=True):
    """Whether this node can answer."""

    initialized: bool
    sealed: bool
    standby: bool
    server_time_utc: int
    version: str
    secrethub_version: str
    cluster_name: str
    cluster_id: str


class SealStatusAnswer(msgspec.Struct, frozen=True):
    """The seal's state, ``t`` of ``n`` shares open it."""

    type: str
    initialized: bool
    sealed: bool
    t: int
    n: int
    progress: int
    nonce: str
    version: str
    cluster_name: str
    cluster_id: str
    recovery_seal: bool
    rolled_back: bool
    slots: list[dict[str, str]]
    secrethub_version: str


class LeaderAnswer(msgspec.Struct, frozen=True):
    """Every node answers by itself."""

    ha_enabled: bool
    is_self: bool
    leader_address: str


class SealedAnswer(msgspec.Struct, frozen=True):
    """The cluster is sealed; these processes did not say that they have dropped their keys."""

    sealed: bool
    unreached: list[str]


class AttemptAnswer(msgspec.Struct, frozen=True):
    """How far an attempt with shares is, or what the last share brought about."""

    nonce: str
    started: bool = False
    complete: bool = False
    t: int = 0
    n: int = 0
    progress: int = 0
    required: int = 0
    slot: str = ""
    keys: list[str] = []
    keys_base64: list[str] = []
    verification_required: bool = False
    verification_nonce: str = ""
    encoded_token: str = ""
    encoded_root_token: str = ""
    otp: str = ""
    otp_length: int = 0


class RotateConfigAnswer(msgspec.Struct, frozen=True):
    """When data keys are rotated without being asked for; ``interval`` is 0 for never by age."""

    enabled: bool
    interval: str | int
    max_operations: int


class RotateStatusAnswer(msgspec.Struct, frozen=True):
    """How much is left that older data keys sealed."""

    term: int
    sealing: int
    left: int
    columns: list[dict[str, str | int]]


class KeyStatusAnswer(msgspec.Struct, frozen=True):
    """The newest data key."""

    term: int
    install_time: str
    encryptions: int


class ArchiveState(msgspec.Struct, frozen=True):
    """What is in the archive."""

    segments: int
    unfinished: bool


class ArchiveAnswer(msgspec.Struct, frozen=True):
    """The archive of the ledger; ``path`` of files, the others of S3."""

    type: str
    retention: int
    segment_entries: int
    status: ArchiveState
    path: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    access_key_id: str = ""


class ArchivedAnswer(msgspec.Struct, frozen=True):
    """What was archived now, and what the rest waits for."""

    segments: list[int]
    entries: int
    waiting: str


class SegmentAnswer(msgspec.Struct, frozen=True):
    """A segment of the archive."""

    number: int
    state: str
    file: str
    since: str
    until: str
    entries: int
    size: int
    sha256: str


class SegmentsAnswer(msgspec.Struct, frozen=True):
    """A page of segments; ``next`` is the next page's ``after``, 0 at the end."""

    segments: list[SegmentAnswer]
    next: int


class ArchiveVerdict(msgspec.Struct, frozen=True):
    """The verdict on the whole archive."""

    segments: int
    entries: int
    ok: bool
    first_bad: dict[str, Any] | None


class RunAnswer(msgspec.Struct, frozen=True):
    """A run of a rotation under way."""

    run: int
    step: str
    trigger: str
    began_at: str
    old_version: int
    new_version: int
    attempts: int
    reason: str


class RotationAnswer(msgspec.Struct, frozen=True):
    """How a secret is rotated; times in seconds."""

    path: str
    rotator: str
    options: dict[str, Any]
    every: int
    cron: str
    zone: str
    jitter: int
    confirm_within: int
    late: str
    paused: bool
    runs: int
    next_at: str | None
    run: RunAnswer | None


class BegunAnswer(msgspec.Struct, frozen=True):
    """The run that was begun; of a dry run what it would do."""

    old_version: int
    run: int = 0
    dry_run: bool = False
    possible: bool = False
    problem: str = ""
    fields: list[str] = []
    new_version: int = 0
    agents: int = 0


class PausedAnswer(msgspec.Struct, frozen=True):
    """Whether the schedule rests."""

    paused: bool


class PastRun(msgspec.Struct, frozen=True):
    """A run that ended."""

    run: int
    outcome: str
    trigger: str
    old_version: int
    new_version: int
    began_at: str
    ended_at: str
    seconds: float
    missing: int
    reason: str


class PastRunsAnswer(msgspec.Struct, frozen=True):
    """A page of runs that ended, the newest first."""

    runs: list[PastRun]
