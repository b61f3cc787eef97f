"""Which policies a new token gets. Pure; the rules are Vault's.

Without a role a token has never more than its parent, unless the caller has ``sudo`` on the path. A role
with lists decides by those instead: the caller may make tokens that can do more than itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from secrethub.engines.token.role import TokenRole
from secrethub.errors import InvalidRequest
from secrethub.policy.builtin import DEFAULT, ROOT, WRAPPING, policy_names

MOST = 64
"""Policies that a token has at most."""


def child_policies(
    asked: Sequence[str] | None,
    own: Iterable[str],
    role: TokenRole | None,
    *,
    sudo: bool,
    no_default: bool,
) -> tuple[str, ...]:
    """Return the names for a new token.

    Args:
        asked: what the request names; nothing for the parent's or the role's. A list of empty names is
            not nothing: it names none, and gets none of theirs.
        own: the parent's.
        role: the role that it is made by.
        sudo: whether the caller has ``sudo`` on the path, or is root.
        no_default: whether it shall be made without ``default``.

    Raises:
        InvalidRequest: a name that is none, or one that it may not have.
    """
    mine = frozenset(own)
    wanted = {*policy_names(asked)} if asked else None
    no_default = no_default or (role is not None and role.no_default_policy)
    if role is not None and _has_lists(role):
        names = _by_role(wanted, mine, role, no_default=no_default)
    elif wanted is None:
        # ``default`` only if the parent has it, or everything.
        names = set(mine)
        if not no_default and ROOT in mine:
            names.add(DEFAULT)
    else:
        if not sudo and not wanted <= mine:
            raise InvalidRequest(
                f"child policies must be subset of parent: {', '.join(sorted(wanted - mine))}"
            )
        names = set(wanted)
        if not no_default and (sudo or DEFAULT in mine):
            names.add(DEFAULT)
    if WRAPPING in names:
        raise InvalidRequest(f"the policy {WRAPPING} cannot be given to a token")
    if len(names) > MOST:
        raise InvalidRequest(f"a token has at most {MOST} policies")
    if ROOT in names:
        if ROOT not in mine:
            raise InvalidRequest("root tokens may not be created without parent token being root")
        return (ROOT,)
    return tuple(sorted(names))


def _has_lists(role: TokenRole) -> bool:
    return bool(
        role.allowed_policies
        or role.allowed_policies_glob
        or role.disallowed_policies
        or role.disallowed_policies_glob
    )


def _by_role(wanted: set[str] | None, mine: frozenset[str], role: TokenRole, *, no_default: bool) -> set[str]:
    excluded = DEFAULT in role.disallowed_policies or _among(DEFAULT, role.disallowed_policies_glob)
    add_default = not no_default and not excluded
    if role.allowed_policies or role.allowed_policies_glob:
        names = set(role.allowed_policies) if wanted is None else wanted
        allowed = {*role.allowed_policies, *((DEFAULT,) if add_default else ())}
        for name in sorted(names):
            if name not in allowed and not _among(name, role.allowed_policies_glob):
                raise InvalidRequest(f"token policy {name} is not among those that the role allows")
    else:
        names = set(mine) if wanted is None else wanted
    names = {*names, *((DEFAULT,) if add_default else ())}
    for name in sorted(names):
        if name in role.disallowed_policies or _among(name, role.disallowed_policies_glob):
            raise InvalidRequest(f"token policy {name} is disallowed by this role")
    return names


def _among(name: str, globs: Iterable[str]) -> bool:
    return any(
        re.fullmatch(".*".join(re.escape(part) for part in glob.split("*")), name) is not None
        for glob in globs
    )
