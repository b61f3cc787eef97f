"""What the system endpoints answer, where it is said nowhere else: mounts, leases, policies, ledger."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Names
from secrethub.policy.decision import Step


class MountAnswer(msgspec.Struct, frozen=True):
    """What is told of a mount."""

    type: str
    description: str
    accessor: str
    uuid: str
    options: dict[str, str] | None
    local: bool
    seal_wrap: bool
    external_entropy_access: bool
    config: dict[str, Any]


class PathMountAnswer(MountAnswer, frozen=True, kw_only=True):
    """The mount that answers a path."""

    path: str


class TuningAnswer(msgspec.Struct, frozen=True):
    """The settings of a mount; limits in seconds."""

    description: str
    default_lease_ttl: int
    max_lease_ttl: int
    force_no_cache: bool
    token_type: str = ""
    options: dict[str, str] = {}
    user_lockout_config: dict[str, Any] = {}


class MountsAnswer(msgspec.Struct, frozen=True):
    """The mounts that the caller may know of, by path."""

    secret: dict[str, MountAnswer]
    auth: dict[str, MountAnswer]


class PolicyNames(Names, frozen=True, kw_only=True):
    """Names of policies, under both names that clients look for."""

    policies: list[str]


class MoveAnswer(msgspec.Struct, frozen=True):
    """A move that was made."""

    migration_id: str


class MoveInfo(msgspec.Struct, frozen=True):
    """From where to where."""

    source_mount: str
    target_mount: str
    status: str


class MoveStatusAnswer(msgspec.Struct, frozen=True):
    """How a move went."""

    migration_id: str
    migration_info: MoveInfo


class LockedMount(msgspec.Struct, frozen=True):
    """The names that are locked at a mount."""

    mount_accessor: str
    counts: int
    alias_identifiers: list[str]


class LockedNamespace(msgspec.Struct, frozen=True):
    """The one namespace that there is."""

    namespace_id: str
    namespace_path: str
    counts: int
    mount_accessors: list[LockedMount]


class LockedUsersAnswer(msgspec.Struct, frozen=True):
    """The names that are locked after failed logins."""

    by_namespace: list[LockedNamespace]
    total: int


class LeaseAnswer(msgspec.Struct, frozen=True):
    """What is known of a lease; ``ttl`` in seconds."""

    id: str
    issue_time: str
    expire_time: str
    last_renewal: str | None
    renewable: bool
    ttl: int


class FoundLease(msgspec.Struct, frozen=True):
    """A lease among others."""

    lease_id: str
    state: str
    mount: str
    engine: str
    role: str
    target: str
    owner: str
    owner_name: str
    issue_time: str
    expire_time: str
    max_expire_time: str
    renewable: bool
    attempts: int
    error: str


class LeasesAnswer(msgspec.Struct, frozen=True):
    """A page of leases; ``next`` is the next page's ``after``."""

    leases: list[FoundLease]
    lease_count: int
    next: str | None


class LeaseCountAnswer(msgspec.Struct, frozen=True):
    """How many leases there are, in all and by mount."""

    lease_count: int
    counts: dict[str, int]


class Maker(msgspec.Struct, frozen=True):
    """Who has leases of a role."""

    mount: str
    role: str
    owner: str
    owner_name: str
    leases: int
    first_expire_time: str


class MakersAnswer(msgspec.Struct, frozen=True):
    """Who has the most leases."""

    makers: list[Maker]


class LeasesOrderedAnswer(msgspec.Struct, frozen=True):
    """How many leases are ended, or tried again."""

    leases: int


class SimulatedAnswer(msgspec.Struct, frozen=True):
    """The decision about a request, and the rules that take part."""

    allowed: bool
    reason: str
    path: str
    native_path: str
    operation: str | None
    capability: str
    native_capability: str
    needs_sudo: bool
    trace: list[Step]


class ReplayedRequest(msgspec.Struct, frozen=True):
    """A request of the past that would be decided otherwise."""

    stream: str
    number: int
    time: str
    request_id: str
    actor: str
    operation: str
    path: str
    outcome: str
    before: str
    after: str
    reason: str


class ReplayAnswer(msgspec.Struct, frozen=True):
    """What would change; ``undecided`` counts by reason; ``next`` is where the next page begins."""

    changes: list[ReplayedRequest]
    undecided: dict[str, int]
    looked_at: int
    next: str


class TemplateParameter(msgspec.Struct, frozen=True):
    """What a template asks for."""

    name: str
    about: str
    many: bool
    required: bool
    default: Any


class TemplateAnswer(msgspec.Struct, frozen=True):
    """A template of policies."""

    name: str
    about: str
    parameters: list[TemplateParameter]


class RenderedAnswer(msgspec.Struct, frozen=True):
    """A native policy document."""

    policy: dict[str, Any]


class PublicKeyAnswer(msgspec.Struct, frozen=True):
    """The key that checkpoints are signed with, in PEM."""

    cluster_id: str
    public_key: str


class VerifiedAnswer(msgspec.Struct, frozen=True):
    """The verdict on the ledger; ``state`` where the rows were compared, too."""

    entries: int
    streams: int
    checkpoints: int
    unproven: int
    ok: bool
    first_bad: dict[str, Any] | None
    state: dict[str, Any] | None


class HashedAnswer(msgspec.Struct, frozen=True):
    """How the ledger has a value."""

    hash: str


class SinkStatus(msgspec.Struct, frozen=True):
    """How a sink fares."""

    behind: int
    delivered: int
    skipped: int
    node: str
    last_delivery: str | None
    failing_since: str | None
    error: str


class SinkAnswer(msgspec.Struct, frozen=True):
    """A further place where entries of the ledger go."""

    type: str
    path: str
    description: str
    options: dict[str, str]
    local: bool
    status: SinkStatus


class QuotaAnswer(msgspec.Struct, frozen=True):
    """A rate limit; intervals in seconds."""

    name: str
    type: str
    path: str
    role: str
    rate: float
    interval: int
    block_interval: int
    group_by: str
    inheritable: bool


class QuotaConfigAnswer(msgspec.Struct, frozen=True):
    """What holds for all rate limits."""

    rate_limit_exempt_paths: list[str]
    enable_rate_limit_audit_logging: bool
    enable_rate_limit_response_headers: bool
