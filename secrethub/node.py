"""What one node's processes need to know, read by each of them from its own node's file.

``cluster`` validates the operator's settings once and writes the result to a 0600 file below the
node's private run directory; actors and Serve replicas find it by the environment variable
``SECRETHUB_NODE_FILE``, which the node's Ray processes inherit. Nothing of it travels through Ray:
constructor arguments and ``bind()`` arguments are kept in Ray's own store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from secrethub.errors import Misconfigured

VARIABLE = "SECRETHUB_NODE_FILE"


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to listen on. ``port`` is never 0 here: free ports are chosen before."""

    host: str
    port: int


class KeyServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key of a cloud's key service that may wrap an unseal slot's secret."""

    name: str
    """What slots call it; the same on every node."""
    kind: Literal["awskms", "gcpckms", "azurekeyvault"]
    key: str
    """Which key, as the service writes it."""
    region: str | None = None
    endpoint: str | None = None
    """Where the service is, if not where its cloud has it."""
    ca_file: str | None = None
    """PEM with the roots to trust instead of the public ones."""
    credentials_file: str | None = None
    """0600 file with what to sign in with."""
    ambient: bool = False
    """Sign in as what the cloud says that this machine is, instead."""


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The resolved settings of a node. Not shown by ``repr``, for it holds the database URL."""

    node: str
    """Name of the node, unique in the cluster (a UUID unless the operator names it)."""
    run_dir: str
    """Private directory (0700) for files that live as long as the node runs."""
    state_dir: str
    """Private directory (0700) for what outlives a restart: the boot certificate, witnesses."""
    database_url: str
    """``postgresql://…`` of the cluster's database."""
    cluster_key_file: str
    """0600 file with the cluster's pre-shared key: 64 hexadecimal digits (32 bytes)."""
    http: Listener | None
    """Plain HTTP, loopback unless the operator said otherwise; None closes this door."""
    tls: Listener | None
    agents: Listener | None
    serve: Listener | None
    """Ray Serve's ingress; None in a single process."""
    metrics: Listener | None
    agent_urls: tuple[str, ...]
    """What enrolled agents are told to connect to: ``wss://host:port``, this node's first."""
    tls_names: tuple[str, ...] = ("localhost",)
    """DNS names in the certificate that the built-in CA issues for 4443 and 4665."""
    tls_addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    """IP addresses in that certificate."""
    tls_certificate_file: str | None = None
    """PEM chain given by the operator for 4443 instead of the built-in CA's certificate."""
    tls_key_file: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    """``Host`` values accepted on 4000 and 8000 beside loopback names."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose ``X-Forwarded-For`` is believed, canonical."""
    init_token_file: str | None = None
    """0600 file with the one-time token that ``init`` from beyond loopback must show."""
    root_key_type: Literal["ecdsa-p384", "rsa-4096"] = "ecdsa-p384"
    """Key of the built-in root CA, chosen when the cluster is made."""
    audit_dirs: tuple[str, ...] = ()
    """Directories below which file sinks of the ledger and its archive may write; none for
    ``state_dir/audit``."""
    syslog_socket: str = "/dev/log"
    """Unix datagram socket of the local syslog daemon."""
    outbound_networks: tuple[str, ...] = ()
    """Networks (CIDR) that may be connected to although they are loopback or link-local, in clear too."""
    key_services: tuple[KeyServiceSettings, ...] = ()
    key_service_opener: str | None = None
    """``module:name`` of what opens them, for the process that does; it is above the actors' folder."""
    dev: bool = False
    database_pool: int = 12
    """Connections a process keeps to PostgreSQL at most."""
    max_body: int = 1_048_576
    """Bytes a request body may have."""

    def __repr__(self) -> str:
        return f"NodeSettings(node={self.node!r})"


def write_node_file(path: Path, settings: NodeSettings) -> None:
    """Write ``settings`` to ``path``, readable by the owner alone."""
    # A file that is there already would keep its mode.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(settings))


def read_node_file(path: str | None = None) -> NodeSettings:
    """Read this node's settings.

    Args:
        path: the file; by default the one named by ``SECRETHUB_NODE_FILE``.

    Raises:
        Misconfigured: no variable, no file, one that others can access, or not a node file.
    """
    chosen = path or os.environ.get(VARIABLE)
    if not chosen:
        raise Misconfigured(f"{VARIABLE} is not set: this process was not started by SecretHub")
    content = _read_private(Path(chosen), "node file")
    try:
        return msgspec.json.decode(content, type=NodeSettings)
    except msgspec.MsgspecError as exc:
        raise Misconfigured(f"node file {chosen}: {exc}") from exc


def read_cluster_key(settings: NodeSettings) -> bytes:
    """Return the 32 bytes of the cluster's pre-shared key.

    Raises:
        Misconfigured: the file is missing, readable by others, or not 64 hexadecimal digits.
    """
    path = Path(settings.cluster_key_file)
    try:
        key = bytes.fromhex(_read_private(path, "cluster key file").decode("ascii").strip())
    except ValueError as exc:
        raise Misconfigured(f"cluster key file {path}: {exc}") from exc
    if len(key) != 32:
        raise Misconfigured(f"cluster key file {path} must hold 64 hexadecimal digits")
    return key


def _read_private(path: Path, what: str) -> bytes:
    """Return what is in a file that nobody but its owner can access."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Misconfigured(f"{what} {path} must not be accessible to others (0600)")
            return file.read()
    except OSError as exc:
        raise Misconfigured(f"{what} {path}: {exc}") from exc
