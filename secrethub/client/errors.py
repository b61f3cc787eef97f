"""What can go wrong between a client and SecretHub.

::

    ClientError
    ├── BadSettings    an address, CA file or pin that cannot work; nothing was sent
    ├── NotReached     no answer came: refused, unknown name, timeout, connection lost
    ├── NotTrusted     the server's certificate is not the expected one; no token was sent
    └── ApiError       the server answered, with an error

No message holds a token, a body or a query value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Root of the tree. ``str()`` is one line for people."""


class BadSettings(ClientError):
    """Settings that cannot work; the message names the setting."""


class NotReached(ClientError):
    """No answer came.

    Attributes:
        may_have_changed: whether a request that changes something may have been received.
    """

    def __init__(self, message: str, may_have_changed: bool = False) -> None:
        super().__init__(message, may_have_changed)
        self.message = message
        self.may_have_changed = may_have_changed

    def __str__(self) -> str:
        return self.message


class NotTrusted(ClientError):
    """The server's certificate is not the expected one."""


class ApiError(ClientError):
    """The server's answer is an error.

    Attributes:
        status: the HTTP status.
        code: stable and machine-readable, e.g. ``permission_denied``; ``http_<status>`` when the
            answer names none (a proxy's page, an old server).
        errors: messages for people; may be empty (a missing secret).
        request_id: finds the request in the audit ledger; may be empty.
        data: what came beside the error (a deleted secret version's metadata), or None.
        retry_after: seconds after which the server asks to try again, or None.
    """

    def __init__(
        self,
        status: int,
        code: str = "",
        errors: tuple[str, ...] = (),
        request_id: str = "",
        data: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, errors, request_id, data, retry_after)
        self.status = status
        self.code = code or f"http_{status}"
        self.errors = errors
        self.request_id = request_id
        self.data = data
        self.retry_after = retry_after

    def __str__(self) -> str:
        said = "; ".join(self.errors) or ("nothing there" if self.status == 404 else self.code)
        return f"{self.status} {said}" + (f" (request {self.request_id})" if self.request_id else "")

    def __repr__(self) -> str:
        return f"ApiError(status={self.status}, code={self.code!r}, request_id={self.request_id!r})"
