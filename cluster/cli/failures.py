"""What went wrong, in one line: what happened, what to do next, and the request's id."""

from __future__ import annotations

from collections.abc import Mapping

from secrethub.client import ApiError, Client, ClientError, NotReached, NotTrusted

NO_TOKEN = "No token: run `secrethub login`, or set SECRETHUB_TOKEN."  # noqa: S105 - a sentence

NOT_FOUND = "not found: nothing has this name or path"
INITIALISE = "nobody has initialised it: `secrethub operator init`"
ABOUT_ITSELF = (
    "the token is unknown, expired or revoked, or was made without the policy `default`; "
    "log in with another: `secrethub login`"
)
"""Advice where a token asks for nothing but itself."""

_ADVICE = {
    "permission_denied": "check the token with `secrethub token lookup`: it may be unknown or expired, "
    "or none of its policies allows this; who may ask finds the reason with `secrethub audit why`",
    "sealed": "unseal with `secrethub operator unseal`",
    "no_handler": "names have no `/`; `secrethub mount list` and `secrethub auth list` show what is mounted",
    "not_initialised": INITIALISE,
    "unavailable": "nothing was disclosed; try again, and look at the server's log if it lasts",
    "cas_mismatch": "read the current version with `secrethub kv get` and write with `--cas VERSION`",
    "too_many_requests": "try again later",
    "quota_exceeded": "try again later",
    "lease_quota_exceeded": "revoke what is not needed (`secrethub lease top`), or raise the quota "
    "(`secrethub quota leases list`)",
    "integrity_failure": "a stored row was changed from outside; look at the server's log first",
}


def explain(error: ClientError, advice: Mapping[str, str] | None = None) -> str:
    """Return one line for the person at the terminal.

    Args:
        error: what happened.
        advice: what to do next, by the error's code, where it is not the usual.
    """
    if isinstance(error, NotReached):
        what = f"No answer from {error}{'' if str(error).endswith('?') else '.'}"
        if error.may_have_changed:
            return f"{what} A change may have been made: check before repeating it."
        return f"{what} Is the server running, and is --address (SECRETHUB_ADDR) right?"
    if isinstance(error, NotTrusted):
        return (
            f"{error}. Name the right root with --ca-file (SECRETHUB_CACERT) or --ca-sha256. A node that "
            "started sealed shows a certificate of its own: name the SHA-256 it printed, and no CA file."
        )
    if not isinstance(error, ApiError):
        return str(error)
    said = _deleted(error) or "; ".join(error.errors) or (NOT_FOUND if error.status == 404 else error.code)
    todo = {**_ADVICE, **(advice or {})}.get(error.code, "")
    parts = [said + (f" ({todo})" if todo else "")]
    if error.request_id:
        parts.append(f"[request {error.request_id}]")
    return " ".join(parts).replace("\n", " ")


def while_uninitialised(error: ApiError, client: Client) -> bool:
    """Tell whether what answers "sealed" was never initialised, so that there is nothing to unseal yet."""
    if error.code != "sealed":
        return False
    try:
        return client.read("sys/seal-status").data.get("initialized") is False
    except ClientError:
        return False


def _deleted(error: ApiError) -> str:
    """Say which version of a secret is gone, and how; nothing when that is not what happened."""
    metadata = (error.data or {}).get("metadata")
    if error.status != 404 or not isinstance(metadata, dict):
        return ""
    version = f"version {metadata.get('version')}"
    if metadata.get("destroyed"):
        return f"{version} was destroyed"
    return f"{version} was deleted at {metadata.get('deletion_time')}; read an older one with --version"
