"""PKI roles: what a mount issues under a name. One exists from init on: ``default``.

The default role issues certificates for TLS servers and clients with a fresh ECDSA P-256 key, for
768 hours unless asked otherwise and a year at most, for any DNS name and any single IP address. It
never issues wildcards, networks, e-mail addresses or URIs, nor the names of SecretHub's own
listeners.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from secrethub.pki.keys import KeyType
from secrethub.pki.profiles import CLIENT, SERVER, SERVICE, Profile
from secrethub.storage.authority import PKI_ROLES, Change

DEFAULT = "default"
_PROFILES = {profile.name: profile for profile in (SERVER, CLIENT, SERVICE)}


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What certificates of a role are.

    Attributes:
        ttl: seconds they live unless the caller asks otherwise.
        max_ttl: seconds they live at most.
        key_type: the key that is made for them.
        profile: ``server``, ``client`` or ``service`` (both).
    """

    ttl: int = 768 * 3600
    max_ttl: int = 365 * 24 * 3600
    key_type: KeyType = "ecdsa-p256"
    profile: Literal["server", "client", "service"] = "service"

    @property
    def certificate_profile(self) -> Profile:
        """The profile that certificates are issued under."""
        return _PROFILES[self.profile]


async def put_role(change: Change, mount: str, name: str, role: Role) -> None:
    """Store a role of the mount at path ``mount``."""
    await change.put(PKI_ROLES, mount + name, msgspec.to_builtins(role))


async def load_role(core: Core, mount: str, name: str) -> Role:
    """Return a role of the mount at path ``mount``.

    Raises:
        InvalidRequest: there is no such role (400, as Vault answers).
        IntegrityFailure: its row is not authentic.
    """
    row = await core.authority.get(PKI_ROLES, mount + name)
    if row is None:
        raise InvalidRequest(f"unknown role: {name}")
    return msgspec.convert(dict(row.body), Role)
