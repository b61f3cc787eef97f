"""Embedded PostgreSQL: a private server over binaries found on the machine."""

from cluster.postgres.binaries import find_binaries
from cluster.postgres.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "find_binaries"]
