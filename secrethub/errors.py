"""Every error SecretHub raises on purpose.

::

    SecretHubError
    ├── InvalidRequest            the caller's input is wrong
    │   ├── InvalidPath           a path that has no canonical form
    │   ├── CasMismatch           check-and-set found another version, or none was given
    │   ├── LoginFailed           credentials that are no good
    │   └── WrongShare            an unseal share that is not one of this slot's
    ├── PermissionDenied          no, and the caller is not told why
    ├── NotFound                  nothing there
    │   └── NoHandler             no engine offers anything there
    ├── UnsupportedOperation      the path exists, the method does not apply
    ├── TooLarge                  a body or name above its limit
    ├── TooManyRequests           throttled; ``retry_after`` seconds
    │   ├── QuotaExceeded         more than a quota admits
    │   └── LeaseQuotaExceeded    as many leases as there may be
    ├── Conflict                  the state forbids it (already initialised, name taken)
    ├── Sealed                    keys are not available
    │   └── PutBack               … until K shares accept that the database was put back
    ├── NotInitialised            no cluster exists in this database yet
    ├── Unavailable               PostgreSQL, the ledger or a peer cannot be reached
    ├── Stale                     decided on an older generation than the database has; decide again
    │   └── UnknownKey            sealed with a data key that this process has not learned of yet
    ├── IntegrityFailure          a stored row does not carry a valid authentication
    ├── DecryptionFailed          a sealed value does not open at this place
    └── Misconfigured             settings that cannot work

Domain errors know no HTTP status; ``serve/errors.py`` has the one table. Each class has a stable
``code``. Fields are passed positionally to ``Exception.__init__`` so that errors survive pickling
between actors. Messages never hold a secret.
"""

from __future__ import annotations

from typing import ClassVar


class SecretHubError(Exception):
    """Root of the tree. ``message`` is for people and holds no secret."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str = "", *fields: object) -> None:
        super().__init__(message, *fields)
        self.message = message

    def __str__(self) -> str:
        return self.message or self.code


class InvalidRequest(SecretHubError):
    """The caller's input is wrong; ``message`` says what and where."""

    code = "invalid_request"


class InvalidPath(InvalidRequest):
    """The path has no canonical form (empty segment, dot segment, control character, …)."""

    code = "invalid_path"


class CasMismatch(InvalidRequest):
    """Check-and-set asked for another version than the current one."""

    code = "cas_mismatch"

    def __init__(self, message: str = "check-and-set parameter did not match the current version") -> None:
        super().__init__(message)


class LoginFailed(InvalidRequest):
    """Credentials that are no good; the caller is told no more than that.

    Attributes:
        reason: what is wrong with them, for the ledger.
    """

    code = "login_failed"

    def __init__(self, message: str = "", reason: str = "") -> None:
        super().__init__(message, reason)
        self.reason = reason


class WrongShare(InvalidRequest):
    """An unseal share that does not belong to the slot, or was given already.

    Attributes:
        reason: ``malformed``, ``unknown`` or ``duplicate``.
    """

    code = "wrong_share"

    def __init__(self, message: str = "", reason: str = "unknown") -> None:
        super().__init__(message, reason)
        self.reason = reason


class PermissionDenied(SecretHubError):
    """Refused. ``reason`` is for the ledger, never for the caller."""

    code = "permission_denied"

    def __init__(self, reason: str = "permission denied") -> None:
        super().__init__(reason)
        self.reason = reason


class NotFound(SecretHubError):
    """Nothing is stored there."""

    code = "not_found"


class NoHandler(NotFound):
    """No engine offers anything at this path; ``message`` names it."""

    code = "no_handler"


class UnsupportedOperation(SecretHubError):
    """The path exists but does not know this method."""

    code = "unsupported_operation"


class TooLarge(SecretHubError):
    """A body, header or name exceeds its limit."""

    code = "too_large"


class TooManyRequests(SecretHubError):
    """Throttled.

    Attributes:
        retry_after: seconds after which a new try makes sense.
    """

    code = "too_many_requests"

    def __init__(self, message: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class QuotaExceeded(TooManyRequests):
    """More than a quota admits; counted, and in the ledger in a summary later."""

    code = "quota_exceeded"


class LeaseQuotaExceeded(TooManyRequests):
    """There are as many leases as a quota allows."""

    code = "lease_quota_exceeded"


class Conflict(SecretHubError):
    """The present state forbids the request."""

    code = "conflict"


class Sealed(SecretHubError):
    """The cluster is sealed, or this process has not got its keys yet."""

    code = "sealed"

    def __init__(self, message: str = "Vault is sealed") -> None:
        super().__init__(message)


class PutBack(Sealed):
    """A witness contradicts the database: it is older, or another one, than what was seen of it."""

    code = "rolled_back"

    def __init__(
        self,
        message: str = "Vault is sealed: the database was put back to an older or other state; enough shares "
        "accept that with `secrethub operator accept-restore`",
    ) -> None:
        super().__init__(message)


class NotInitialised(SecretHubError):
    """The database holds no cluster yet."""

    code = "not_initialised"

    def __init__(self, message: str = "SecretHub is not initialised") -> None:
        super().__init__(message)


class Unavailable(SecretHubError):
    """Something that must answer does not: nothing was disclosed, and the caller may retry.

    A change whose outcome is unknown says so in its message.
    """

    code = "unavailable"


class Stale(SecretHubError):
    """The decision rests on an older authority generation or seal epoch; take it again."""

    code = "stale"


class UnknownKey(Stale):
    """A value is sealed with a data key younger than this process's keyring: fetch that, decide again.

    Attributes:
        number: of the data key.
    """

    code = "unknown_key"

    def __init__(self, message: str = "", number: int = 0) -> None:
        super().__init__(message, number)
        self.number = number


class IntegrityFailure(SecretHubError):
    """A row fails its authentication: edited, inserted, removed or put back by someone else.

    Attributes:
        table: the table's name.
        key: the row's primary key.
        reason: what does not fit.
    """

    code = "integrity_failure"

    def __init__(self, table: str = "", key: str = "", reason: str = "") -> None:
        super().__init__(f"{table} row {key}: {reason}", table, key, reason)
        self.table = table
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type[IntegrityFailure], tuple[str, str, str]]:
        return type(self), (self.table, self.key, self.reason)


class DecryptionFailed(SecretHubError):
    """A sealed value does not open: wrong key, wrong place, or damaged."""

    code = "decryption_failed"


class Misconfigured(SecretHubError):
    """Settings that cannot work; ``message`` names the setting."""

    code = "misconfigured"
