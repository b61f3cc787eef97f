"""What is stored instead of bearer secrets: keyed digests, never the secret itself."""

from __future__ import annotations

from secrethub.crypto.digests import canonical, mac
from secrethub.crypto.keyring import Keyring


def token_digest(keyring: Keyring, token: str) -> str:
    """Return the key under which a token's row is stored: 64 hexadecimal digits."""
    return keyring.mac("token").digest(canonical("token", token)).hex()


def accessor_digest(keyring: Keyring, accessor: str) -> str:
    """Return the key under which an accessor's row is stored."""
    return mac(keyring.derived("accessor"), "accessor", accessor).hex()


def role_id_digest(keyring: Keyring, mount_id: str, role_id: str) -> str:
    """Return the key under which a RoleID's row is stored; each mount has its own space."""
    return mac(keyring.derived("role-id"), "role-id", mount_id, role_id).hex()


def secret_id_digest(keyring: Keyring, role_uuid: str, secret_id: str) -> str:
    """Return the key under which a SecretID's row is stored; each role has its own space."""
    return mac(keyring.derived("secret-id"), "secret-id", role_uuid, secret_id).hex()
