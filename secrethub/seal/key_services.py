"""Key services, as the seal sees them: what a cloud does for a slot's secret.

The clients are not here, and are not imported before one of them is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from secrethub.crypto.digests import sha256
from secrethub.errors import Misconfigured


class KeyService(Protocol):
    """One key of a key service."""

    async def wrap(self, secret: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return ``secret`` wrapped for this cluster and slot alone.

        Raises:
            Unavailable: the service cannot be reached, or refuses.
            Misconfigured: it cannot be asked with these settings.
        """
        ...

    async def unwrap(self, wrapped: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return what :meth:`wrap` wrapped.

        Raises:
            DecryptionFailed: wrapped by another key, for another cluster or slot, or damaged.
            Unavailable, Misconfigured: as in :meth:`wrap`.
        """
        ...


class KeyServices(Protocol):
    """The keys of key services that this node may use, by the names they have in its settings."""

    def kinds(self) -> Mapping[str, str]:
        """Return name → kind."""
        ...

    def get(self, name: str, kind: str) -> KeyService:
        """Return a key.

        Raises:
            Misconfigured: this node's settings have no key of this name and kind, or it cannot be used.
        """
        ...


class NoKeyServices:
    """No key of any service is in this node's settings."""

    def kinds(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def get(self, name: str, kind: str) -> KeyService:
        """Refuse.

        Raises:
            Misconfigured: always.
        """
        raise Misconfigured(f"key_services: this node's settings have no {kind} key called {name!r}")


def binding(cluster_id: str, slot_id: str) -> bytes:
    """Return 32 bytes that stand for a slot, where a service binds nothing itself."""
    return sha256("secrethub/slot/binding/v1", cluster_id, slot_id)


def context(cluster_id: str, slot_id: str) -> dict[str, str]:
    """Return what a service binds that knows names and values. It may log them; they are not secret."""
    return {"secrethub-cluster": cluster_id, "secrethub-slot": slot_id}
