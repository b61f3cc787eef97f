"""The HTTP API as these tests call it: every answer is looked at, none is tried again."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Self

import httpx2

_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Plain HTTP trusts no authority, so none is read."""


class Api:
    """One node's plain HTTP door, with a token."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token
        self._client = httpx2.Client(base_url=f"{url}/v1/", timeout=30.0, trust_env=False, verify=_NOBODY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request and return whatever is answered."""
        headers = {"X-Vault-Token": self.token} if self.token else {}
        return self._client.request(method, path, headers=headers | options.pop("headers", {}), **options)

    def call(self, method: str, path: str, body: object = None, **options: Any) -> dict[str, Any]:
        """Send a request that must succeed and return the answer's body, {} when there is none."""
        answer = self.send(method, path, **({} if body is None else {"json": body}), **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json()) if answer.content else {}

    def put_secret(self, path: str, **data: object) -> int:
        """Write a secret and return its version."""
        return int(self.call("POST", f"secrets/{path}", {"data": data})["data"]["version"])

    def secret(self, path: str) -> dict[str, Any]:
        """Read a secret."""
        return dict(self.call("GET", f"secrets/{path}")["data"]["data"])

    def status(self) -> int | None:
        """Return what health answers: 200 when unsealed; None without an answer."""
        try:
            return self.send("GET", "sys/health").status_code
        except httpx2.TransportError:
            return None

    def is_open(self) -> bool:
        """Tell whether the gateway serves and SealState answers that the cluster is unsealed."""
        if self.status() != 200:
            return False
        answer = self.send("GET", "sys/seal-status")
        return answer.status_code == 200 and answer.json()["sealed"] is False

    def initialise(self) -> tuple[list[str], str]:
        """Make the cluster and return its shares (base64) and the root token."""
        made = self.call("POST", "sys/init", {"secret_shares": 5, "secret_threshold": 3})
        return list(made["keys_base64"]), str(made["root_token"])

    def unseal(self, shares: list[str]) -> None:
        """Unseal with three of the shares."""
        for share in shares[:3]:
            self.call("POST", "sys/unseal", {"key": share})

    def machine(self, name: str, policy: object) -> tuple[str, str]:
        """Make an AppRole with its policy and return RoleID and SecretID."""
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        self.call("POST", f"auth/approle/role/{name}", {"token_policies": [name]})
        role_id = self.call("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret_id = self.call("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
        return str(role_id), str(secret_id)

    def login(self, role_id: str, secret_id: str) -> str:
        """Log in with AppRole and return the token."""
        body = {"role_id": role_id, "secret_id": secret_id}
        return str(self.call("POST", "auth/approle/login", body)["auth"]["client_token"])


def readers(*paths: str, capabilities: tuple[str, ...] = ("read",)) -> dict[str, object]:
    """Return a policy that allows reading some paths, or more."""
    return {
        "version": "1",
        "statements": [{"effect": "allow", "paths": list(paths), "capabilities": list(capabilities)}],
    }
