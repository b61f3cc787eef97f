"""Where a Redis server is, and what its users may do. Pure.

A role's ``creation_statements`` are rules of Redis's ACL (its documentation: Security, ACL): one a text,
several separated by spaces, or a list in JSON as Vault's clients send it. Passwords, and whether a user is
let in at all, are not for rules to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from secrethub.engines.database.place import USER_INFO, Place, user_info
from secrethub.errors import InvalidRequest

DEFAULT_RULES = ("~*", "+@read")
"""What Vault's users may do unless a role says otherwise."""

_PORT = 6379
_MODES = {"rediss": "verify-full", "redis": "disable"}
_RULE = re.compile(
    r"[+-]@?[A-Za-z][A-Za-z0-9_.|-]*|(?:%R?W?)?~[\x21-\x7e]*|&[\x21-\x7e]*|\([\x20-\x7e]*\)"
    r"|allkeys|allchannels|allcommands|nocommands|resetchannels|resetkeys"
)
_LONGEST = 512


def parse_place(given: Mapping[str, str]) -> tuple[Place, str, str]:
    """Return where a server is, and user and password if they are in its URL instead of placeholders.

    Args:
        given: ``host``, ``port`` and ``tls`` as in Vault, or ``connection_url``.

    Raises:
        InvalidRequest: it says something that is not taken. The message has nothing of it.
    """
    if host := given.get("host"):
        port = given.get("port", str(_PORT))
        if not re.fullmatch(r"[0-9]{1,5}", port) or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", host):
            raise InvalidRequest("host is a name or an address, and port a number")
        mode = _MODES["rediss" if given.get("tls") == "true" else "redis"]
        return Place(host=host, port=int(port), database="", mode=mode), "", ""
    wrong = "connection_url is rediss://{{username}}:{{password}}@host:port"
    try:
        parts = urlsplit(given.get("connection_url", ""))
        port_of = parts.port
    except ValueError:
        raise InvalidRequest(wrong) from None
    if parts.scheme not in _MODES or not parts.hostname or parts.path.strip("/") or "{" in parts.hostname:
        raise InvalidRequest(wrong)
    if parts.query or parts.fragment:
        raise InvalidRequest(wrong)
    place = Place(
        host=parts.hostname,
        port=_PORT if port_of is None else port_of,
        database="",
        mode=_MODES[parts.scheme],
    )
    return place, *user_info(parts)


def shown_url(place: Place) -> str:
    """Return the URL of a place as it is kept and shown, with placeholders."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    scheme = next(scheme for scheme, mode in _MODES.items() if mode == place.mode)
    return f"{scheme}://{USER_INFO}@{host}:{place.port}"


def rules(statements: Sequence[str]) -> tuple[str, ...]:
    """Return the rules that statements are; :data:`DEFAULT_RULES` for none.

    Raises:
        InvalidRequest: one is no rule, or says what is not for it to say.
    """
    found = tuple(rule for statement in statements for rule in _split(statement.strip()))
    for rule in found:
        if len(rule) > _LONGEST or _RULE.fullmatch(rule) is None:
            raise InvalidRequest(
                "creation_statements are rules of Redis's ACL about commands, keys and channels, such as "
                '["~app:*", "+@read"]: passwords, on, off and reset are not for them'
            )
    return found or DEFAULT_RULES


def _split(text: str) -> list[str]:
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.MsgspecError:
            raise InvalidRequest("statements in JSON are a list of texts") from None
    return [text] if text.startswith("(") else text.split()
