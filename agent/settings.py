"""The agent's settings by topic. Read and checked once by :mod:`agent.configuration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from secrethub.sensitive import Sensitive

AgentKeyType: TypeAlias = Literal["rsa-2048", "ecdsa-p256"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSettings:
    """Who this agent is to people."""

    name: str
    """Shown in the inventory and the ledger; the host's name unless set."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Free text for the inventory; nothing is decided on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreSettings:
    """Where Core is, and whose certificates are believed at first contact."""

    urls: tuple[str, ...]
    """``https://host:port``, tried in turn; ``http://`` only on loopback."""
    ca_file: Path | None = None
    """PEM file with the roots to trust; the system's roots when neither this nor a pin is set."""
    ca_sha256: str | None = None
    """SHA-256 of the root certificate, 64 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthSettings:
    """How the agent logs in, once, to get its certificate."""

    mount: str = "approle"
    """Where AppRole is mounted, below ``auth/``."""
    role_id: str | None = None
    """Needed until the agent has its certificate."""
    secret_id: Sensitive[str] | None = None
    """Given by the environment; then there is no file to remove."""
    secret_id_file: Path | None = None
    """Read at enrolment, removed once the certificate is stored."""
    wrapped_from: str | None = None
    """Then the SecretID is a wrapping token, which must have been made at this path of Core's API."""
    keep: bool = False
    """Leave the SecretID's file where it is."""
    key_type: AgentKeyType = "rsa-2048"
    """Kind of the agent's own key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """What is kept of secrets that were read."""

    ttl: int = 300
    """Seconds an entry answers without asking Core."""
    max_entries: int = 10_000
    """Entries of all applications together."""
    max_bytes: int = 64 * 2**20
    """Bytes of all entries together."""
    stale: int = 86_400
    """Seconds an entry may answer while Core is away; 0 never."""
    disk: bool = True
    """Keep an encrypted copy below the state directory, if there is a tmpfs for its key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantSettings:
    """Which local process may read what. All of the conditions that are set must hold."""

    paths: tuple[str, ...] = ()
    """``secrets/…``; ``*`` is one segment or a part of it, ``**`` any number of segments."""
    credentials: tuple[str, ...] = ()
    """Where credentials may be made for it, like ``secrets/dynamic/postgresql/creds/app``; as above."""
    uid: int | None = None
    gid: int | None = None
    unit: str | None = None
    """systemd unit, from the process's control group."""
    executable: str | None = None
    """Path of the program; narrows the others and never grants by itself."""
    application: str | None = None
    """Name under which Core decides what it may read; as the agent itself when not set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SocketSettings:
    """The Unix socket for local applications."""

    path: Path
    mode: int = 0o660
    uid: int | None = None
    gid: int | None = None
    """Owner and group of the socket; the process's own when not set."""
    allow: tuple[GrantSettings, ...] = ()
    """Nothing is allowed without an entry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalReload:
    """Send a signal to the process of a pid file, or to the main process of a systemd unit."""

    signal: int
    pid_file: Path | None = None
    unit: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandReload:
    """Run a command, without a shell."""

    argv: tuple[str, ...]
    timeout: int = 30
    """Seconds after which it is killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpReload:
    """POST to a URL: https anywhere, plain http on loopback."""

    url: str
    timeout: int = 30
    """Seconds to wait for a 2xx answer."""


ReloadSettings: TypeAlias = SignalReload | CommandReload | HttpReload


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateSettings:
    """One file that is rendered and kept up to date."""

    destination: Path
    source: Path | None = None
    content: str | None = None
    """Exactly one of source and content is set."""
    uid: int | None = None
    gid: int | None = None
    """Owner and group of the file; the process's own when not set."""
    mode: int = 0o400
    backup: bool = False
    """Keep the file before as ``<destination>.bak``."""
    reload: ReloadSettings | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSettings:
    """A command that rotations may have run here, by its name; Core chooses nothing else of it."""

    name: str
    argv: tuple[str, ...]
    """The program's absolute path, and arguments; the step and the order's id follow them."""
    timeout: int = 60
    """Seconds after which it is killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything."""

    host: HostSettings
    core: CoreSettings
    auth: AuthSettings
    state_dir: Path
    """Private directory for the identity."""
    cache: CacheSettings
    socket: SocketSettings | None
    templates: tuple[TemplateSettings, ...]
    commands: tuple[CommandSettings, ...] = ()
    log_level: LogLevel = "info"
