"""The policies that exist without being written, and the rule for names of policies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from secrethub.errors import InvalidRequest

ROOT = "root"
"""Allows everything; never stored, never edited (``compile_policies(…, root=True)``)."""

DEFAULT = "default"
"""Attached to every token unless it is made without it; may be edited."""

WRAPPING = "response-wrapping"
"""What a wrapping token has; built in, and given to no other token."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

_DEFAULT_RULES: dict[str, list[str]] = {
    "auth/token/lookup-self": ["read"],
    "auth/token/renew-self": ["update"],
    "auth/token/revoke-self": ["update"],
    "sys/capabilities-self": ["update"],
    "cubbyhole/*": ["create", "read", "update", "delete", "list"],
    "sys/wrapping/wrap": ["update"],
    "sys/wrapping/lookup": ["update"],
    "sys/wrapping/unwrap": ["update"],
    "sys/tools/hash": ["update"],
    "sys/tools/hash/*": ["update"],
    # Of one's own leases only, and of those that one's own children have.
    "sys/leases/lookup": ["update"],
    "sys/leases/renew": ["update"],
    "sys/leases/revoke": ["update"],
    "sys/renew": ["update"],
    "sys/internal/ui/mounts": ["read"],
    # These two take nothing but tokens from an AppRole login (see engines/agents).
    "agents/enroll/begin": ["update"],
    "agents/enroll": ["update"],
    "sys/internal/ui/mounts/*": ["read"],
}

DEFAULT_POLICY_SOURCE = json.dumps(
    {"path": {path: {"capabilities": granted} for path, granted in _DEFAULT_RULES.items()}}, indent=2
)
"""What ``default`` says until someone edits it, as Vault's ACL in JSON."""


WRAPPING_POLICY_SOURCE = json.dumps({"path": {"sys/wrapping/unwrap": {"capabilities": ["update"]}}})
"""A wrapping token opens what it was made for."""


def normalise_policy_name(name: str) -> str:
    """Return the name of a policy that is referred to, ``root`` included, in lower case.

    Raises:
        InvalidRequest: it is not 1 to 128 of ``A-Z a-z 0-9 _ . -``, or is a dot segment.
    """
    if _NAME.fullmatch(name) is None or name in {".", ".."}:
        raise InvalidRequest("a policy name has 1 to 128 characters of a-z, 0-9, '_', '.' and '-'")
    return name.lower()


def policy_names(given: Iterable[str]) -> tuple[str, ...]:
    """Return the policies that a list names, in order: spaces around names and empty names count for nothing.

    Raises:
        InvalidRequest: as :func:`normalise_policy_name`.
    """
    return tuple(sorted({normalise_policy_name(name) for text in given if (name := text.strip())}))


def check_policy_name(name: str) -> str:
    """Return the name of a policy that is to be written, in lower case.

    Raises:
        InvalidRequest: as :func:`normalise_policy_name`, and for those that are built in.
    """
    normal = normalise_policy_name(name)
    if normal in {ROOT, WRAPPING}:
        raise InvalidRequest(f"the policy {normal} is built in: it can be neither written nor bound")
    return normal
