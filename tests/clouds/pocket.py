"""A cloud of one key that is its name: for tests that need a key service, and nothing of its network.

Named as ``key_service_opener`` in a node's settings, in any process.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from secrethub.errors import DecryptionFailed
from secrethub.node import KeyServiceSettings
from secrethub.seal.key_services import binding

OPENER = "tests.clouds.pocket:Services"
SETTINGS = KeyServiceSettings(name="pocket", kind="gcpckms", key="in the pocket", credentials_file="none")


class _Key:
    def __init__(self, name: str) -> None:
        self._siv = AESSIV(hashlib.sha256(name.encode()).digest())

    async def wrap(self, secret: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Wrap for one cluster and slot."""
        return self._siv.encrypt(secret, [binding(cluster_id, slot_id)])

    async def unwrap(self, wrapped: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return what was wrapped."""
        try:
            return self._siv.decrypt(wrapped, [binding(cluster_id, slot_id)])
        except InvalidTag as exc:
            raise DecryptionFailed("wrapped for something else") from exc


class Services:
    """The keys in a node's settings."""

    def __init__(self, settings: tuple[KeyServiceSettings, ...]) -> None:
        self._keys = {one.name: (one.kind, _Key(one.key)) for one in settings}

    def kinds(self) -> dict[str, str]:
        """Return name → kind."""
        return {name: kind for name, (kind, _) in self._keys.items()}

    def get(self, name: str, _kind: str) -> _Key:
        """Return a key."""
        return self._keys[name][1]
