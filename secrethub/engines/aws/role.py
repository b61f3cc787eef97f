"""A role: which credentials are given out, and what they may do. Pure but for its row.

AWS's bounds on how long temporary credentials live are its own: 15 minutes at least, 12 hours for a role that
is assumed and 36 for a federation token at most (STS API reference).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from secrethub.engines.aws.root import FORM
from secrethub.engines.kept import kept_key
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import ENGINE_ROLES, Row

CredentialType = Literal["assumed_role", "federation_token", "iam_user"]

SHORTEST = 900
LONGEST: Mapping[str, int] = {"assumed_role": 43_200, "federation_token": 129_600}
OWN_TAG = "secrethub-"
"""How tags begin that operators do not set."""

_LONGEST_POLICY = 10_240
_MOST_ARNS = 20
_MOST_TAGS = 45
_ARN = r"arn:aws[a-z-]*:iam::"
_POLICY_ARN = re.compile(_ARN + r"(?:[0-9]{12}|aws):policy/[\w+=,.@/-]{1,512}", re.ASCII)
_ROLE_ARN = re.compile(_ARN + r"[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_GROUP = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_USER_PATH = re.compile(r"/(?:[\x21-\x7e]{1,510}/)?")
_TAG_KEY = re.compile(r"[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A role.

    Attributes:
        credential_type: what is given out.
        role_arns: roles of AWS that may be assumed.
        policy_arns: managed policies: of a user, or within which temporary credentials are kept.
        policy_document: likewise, as compact JSON; empty for none.
        iam_groups: of a user.
        iam_tags: of a user.
        session_tags: of a session of an assumed role.
        external_id: that the roles ask for.
        default_sts_ttl: seconds that temporary credentials live unless somebody asks for another time; 0 for
            an hour.
        max_sts_ttl: seconds that they live at most; 0 for the mount's.
        permissions_boundary_arn: of a user.
        user_path: of a user.
    """

    credential_type: CredentialType
    role_arns: tuple[str, ...] = ()
    policy_arns: tuple[str, ...] = ()
    policy_document: str = ""
    iam_groups: tuple[str, ...] = ()
    iam_tags: dict[str, str] = {}
    session_tags: dict[str, str] = {}
    external_id: str = ""
    default_sts_ttl: int = 0
    max_sts_ttl: int = 0
    permissions_boundary_arn: str = ""
    user_path: str = "/"


_ONLY: Mapping[str, frozenset[str]] = {
    "role_arns": frozenset({"assumed_role"}),
    "session_tags": frozenset({"assumed_role"}),
    "external_id": frozenset({"assumed_role"}),
    "default_sts_ttl": frozenset({"assumed_role", "federation_token"}),
    "max_sts_ttl": frozenset({"assumed_role", "federation_token"}),
    "iam_groups": frozenset({"iam_user"}),
    "iam_tags": frozenset({"iam_user"}),
    "permissions_boundary_arn": frozenset({"iam_user"}),
    "user_path": frozenset({"iam_user"}),
}
"""Types of credentials that a field is for; others refuse it, for it would mean nothing."""


def role_of(row: Row) -> Role:
    """Return the role that a row describes."""
    return msgspec.convert(row.body, Role)


async def find_role(core: Core, mount: str, name: str) -> Role | None:
    """Return a role of the mount with a UUID; None when there is none.

    Raises:
        InvalidRequest: not a name.
        IntegrityFailure: its row is not authentic.
    """
    row = await core.authority.get(ENGINE_ROLES, kept_key(mount, FORM, name))
    return None if row is None else role_of(row)


def checked_role(fields: Mapping[str, Any]) -> Role:
    """Return the role that fields describe, in the forms that they are kept in.

    Raises:
        InvalidRequest: one cannot be, or they do not go together.
    """
    kind = fields.get("credential_type")
    if kind not in get_args(CredentialType):
        raise InvalidRequest(f"credential_type is one of {', '.join(get_args(CredentialType))}")
    role = msgspec.convert(dict(fields), Role)
    usual = Role(credential_type=role.credential_type)
    for name, kinds in _ONLY.items():
        if getattr(role, name) != getattr(usual, name) and kind not in kinds:
            raise InvalidRequest(f"{name} is for credential_type {' and '.join(sorted(kinds))}")
    _each(role.role_arns, _ROLE_ARN, "role_arns are ARNs of roles of IAM")
    _each(role.policy_arns, _POLICY_ARN, "policy_arns are ARNs of policies of IAM")
    _each(role.iam_groups, _GROUP, "iam_groups are names of groups of IAM")
    if role.permissions_boundary_arn:
        _each((role.permissions_boundary_arn,), _POLICY_ARN, "permissions_boundary_arn is a policy's ARN")
    if _USER_PATH.fullmatch(role.user_path) is None:
        raise InvalidRequest("user_path begins and ends with a slash")
    if role.external_id and _EXTERNAL_ID.fullmatch(role.external_id) is None:
        raise InvalidRequest("external_id has 2 to 1224 letters, digits and +=,.@:/-")
    _check_powers(role)
    _check_times(role)
    return role


def compact_policy(given: str | Mapping[str, Any]) -> str:
    """Return a policy document as compact JSON; empty for none.

    Raises:
        InvalidRequest: it is no JSON object, or too long.
    """
    try:
        document = msgspec.json.decode(given) if isinstance(given, str) and given.strip() else given
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidRequest("policy_document is no JSON") from exc
    if isinstance(document, str):
        return ""
    if not isinstance(document, Mapping):
        raise InvalidRequest("policy_document is a JSON object")
    text = msgspec.json.encode(document).decode()
    if len(text) > _LONGEST_POLICY:
        raise InvalidRequest(f"policy_document has more than {_LONGEST_POLICY} characters")
    return text


def tags(given: Mapping[str, Any] | list[str] | str, name: str) -> dict[str, str]:
    """Return tags, given as an object, or as ``key=value`` in a list or separated by commas.

    Raises:
        InvalidRequest: there can be no such tag.
    """
    if isinstance(given, str):
        given = [part.strip() for part in given.split(",") if part.strip()]
    if isinstance(given, list):
        if not all("=" in text for text in given):
            raise InvalidRequest(f"{name} are key=value")
        given = {key: value for key, _, value in (text.partition("=") for text in given)}
    found = {key: str(value) for key, value in given.items()}
    if len(found) > _MOST_TAGS:
        raise InvalidRequest(f"{name} are at most {_MOST_TAGS}")
    for key, value in found.items():
        if _TAG_KEY.fullmatch(key) is None or _TAG_VALUE.fullmatch(value) is None:
            raise InvalidRequest(f"{name} have letters, digits, spaces and _.:/=+@-")
        if key.lower().startswith(("aws:", OWN_TAG)):
            raise InvalidRequest(f"{name} do not begin with aws: or {OWN_TAG}")
    return found


def _each(found: tuple[str, ...], pattern: re.Pattern[str], what: str) -> None:
    if len(found) > _MOST_ARNS or not all(pattern.fullmatch(one) for one in found):
        raise InvalidRequest(f"{what}, at most {_MOST_ARNS}")


def _check_powers(role: Role) -> None:
    """Check that it is said what the credentials may do."""
    limits = bool(role.policy_arns or role.policy_document)
    if role.credential_type == "assumed_role" and not role.role_arns:
        raise InvalidRequest("assumed_role needs role_arns")
    if role.credential_type == "federation_token" and not limits:
        # Without a policy they could do whatever we can.
        raise InvalidRequest("federation_token needs policy_arns or policy_document")
    if role.credential_type == "iam_user" and not limits and not role.iam_groups:
        raise InvalidRequest("iam_user needs policy_arns, policy_document or iam_groups")


def _check_times(role: Role) -> None:
    longest = LONGEST.get(role.credential_type, 0)
    for name in ("default_sts_ttl", "max_sts_ttl"):
        seconds = getattr(role, name)
        if seconds and not SHORTEST <= seconds <= longest:
            raise InvalidRequest(f"{name} is from {SHORTEST} to {longest} seconds for {role.credential_type}")
    if 0 < role.max_sts_ttl < role.default_sts_ttl:
        raise InvalidRequest("default_sts_ttl is longer than max_sts_ttl")
