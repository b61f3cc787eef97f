"""``dev.json``: where a development installation can be reached, for scripts and tests."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cluster.folders import write_private
from cluster.ready import local_url
from secrethub.node import NodeSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What init gave out."""

    root_token: str = field(repr=False)
    unseal_keys: tuple[str, ...] = field(repr=False)
    """Base64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """The built-in root certificate.

    Attributes:
        file: PEM.
        sha256: fingerprint of its DER form, hexadecimal.
    """

    file: Path
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoints:
    """Addresses without ``/v1``; ``serve`` is None in a single process."""

    api: str
    api_tls: str
    serve: str | None
    agent_url: str
    metrics: str
    database_url: str = field(repr=False)
    postgres_dir: str | None

    @classmethod
    def of(cls, node: NodeSettings, *, database_url: str, postgres_dir: Path | None) -> Endpoints:
        """Return the addresses of a node whose doors are all open."""
        return cls(
            api=local_url(node.http),
            api_tls=local_url(node.tls, "https"),
            serve=local_url(node.serve) if node.serve is not None else None,
            agent_url=node.agent_urls[0],
            metrics=local_url(node.metrics),
            database_url=database_url,
            postgres_dir=str(postgres_dir) if postgres_dir is not None else None,
        )


class DevFile:
    """The file, there only while the installation runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, endpoints: Endpoints, keys: Keys | None = None, root: Root | None = None) -> None:
        """Write the whole file at once, readable by the owner alone."""
        content: dict[str, Any] = {
            "api": endpoints.api,
            "api_tls": endpoints.api_tls,
            "serve": endpoints.serve,
            "agent_url": endpoints.agent_url,
            "metrics": endpoints.metrics,
            "ca_file": str(root.file) if root else None,
            "ca_sha256": root.sha256 if root else None,
            "database_url": endpoints.database_url,
            "postgres_dir": endpoints.postgres_dir,
            "root_token": keys.root_token if keys else None,
            "unseal_keys": list(keys.unseal_keys) if keys else [],
            "pid": os.getpid(),
        }
        text = msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
        write_private(self.path, text + "\n")

    def remove(self) -> None:
        """Remove the file: nothing can be reached any more."""
        self.path.unlink(missing_ok=True)
