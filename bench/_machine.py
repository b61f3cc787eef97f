"""A machine that logs in: a role and SecretIDs of it, made over the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.demo.core import Addresses
from secrethub.client import Client, ClientSettings
from secrethub.sensitive import Sensitive

LOGIN = "/v1/auth/approle/login"
_ROLE = "auth/approle/role/bench"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What it logs in with. ``expired`` is no good any more."""

    role_id: str
    secret_id: str = field(repr=False)
    expired: str = field(repr=False)


def machine(addresses: Addresses) -> Machine:
    """Make a role, a SecretID for any number of logins, and one that has expired."""
    settings = ClientSettings(address=addresses.api, token=Sensitive(addresses.root_token or ""))
    with Client(settings) as client:
        client.write(_ROLE, {"token_ttl": "5m", "token_policies": ["bench"], "token_no_default_policy": True})
        role_id = client.read(f"{_ROLE}/role-id").data["role_id"]

        def secret_id(**body: Any) -> str:
            return str(client.write(f"{_ROLE}/secret-id", body).data["secret_id"])

        # A second has passed by the time that anybody logs in.
        return Machine(role_id=str(role_id), secret_id=secret_id(), expired=secret_id(ttl="1s"))
