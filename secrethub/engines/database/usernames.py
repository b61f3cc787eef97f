"""Names of users that are made: what the operator's template says, then the cluster and the intent. Pure.

The end of a name is never the operator's: a tag of the cluster, so that a reconciler touches only its own,
and the intent's marker, unique in all clusters, so that a name is never used twice and none that exists is
adopted. The template is a small part of Vault's language: text, and ``{{.RoleName}}``, ``{{.DisplayName}}``,
``{{random 4}}``, ``{{unix_time}}``, each with ``| truncate 8``, ``| lowercase`` or ``| uppercase`` after it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

from secrethub.errors import InvalidRequest

DEFAULT_TEMPLATE = "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}"
_TAG = 12
_MARKER = 24
_LONGEST_TEMPLATE = 256
_PLACE = re.compile(r"\{\{(.*?)\}\}")
_SOURCE = re.compile(r"\(?(\.DisplayName|\.RoleName|unix_time|random ([0-9]{1,2}))\)?")
_STEP = re.compile(r"lowercase|uppercase|truncate ([0-9]{1,2})")
_ODD = re.compile(r"[^A-Za-z0-9_.-]")
_OURS = re.compile(rf"-([0-9a-f]{{{_TAG}}})-([A-Za-z0-9]{{{_MARKER}}})")


def cluster_tag(cluster: str) -> str:
    """Return by what users of a cluster are told from those of another: 48 bits of its id's digest."""
    return hashlib.sha256(b"secrethub-user\0" + cluster.encode()).hexdigest()[:_TAG]


def owner_name(cluster: str, mount: str, role: str) -> str:
    """Return who at a target owns what users of a role have left: one for each role, and never a user's name.

    Args:
        cluster: its id.
        mount: its UUID.
        role: whose users they were; empty where that is not known any more.
    """
    digest = hashlib.sha256(f"secrethub-owner\0{cluster}\0{mount}\0{role}".encode()).hexdigest()
    return f"{_ODD.sub('-', role)[:32] or 'strays'}-owned-{digest[:_TAG]}"


def username(
    template: str,
    *,
    role: str,
    display_name: str,
    tag: str,
    marker: str,
    longest: int,
    unix_time: int,
    random: Callable[[int], str],
) -> str:
    """Return the name of a user that is about to be made.

    Args:
        template: of the operator; empty for :data:`DEFAULT_TEMPLATE`.
        role: its name.
        display_name: of whoever asks.
        tag: of the cluster.
        marker: of the intent.
        longest: characters that the target takes.
        unix_time: seconds since the epoch.
        random: gives so many random characters.

    Raises:
        InvalidRequest: the template is wrong.
    """
    values = {".DisplayName": display_name, ".RoleName": role, "unix_time": str(unix_time)}
    text = _PLACE.sub(lambda found: _filled(found[1], values, random), _checked(template or DEFAULT_TEMPLATE))
    end = f"-{tag}-{marker}"
    return _ODD.sub("-", text)[: longest - len(end)] + end


def check_template(template: str) -> None:
    """Check a template.

    Raises:
        InvalidRequest: what is wrong with it.
    """
    if template:
        username(
            template,
            role="r",
            display_name="d",
            tag="0" * _TAG,
            marker="0" * _MARKER,
            longest=63,
            unix_time=0,
            random="x".__mul__,
        )


def marker_of(name: str, tag: str) -> str | None:
    """Return the marker in the name of a user that this cluster made; None for any other user."""
    found = _OURS.search(name)
    if found is None or found.end() != len(name) or found[1] != tag:
        return None
    return found[2]


def _checked(template: str) -> str:
    rest = _PLACE.sub("", template)
    if len(template) > _LONGEST_TEMPLATE or not template.isprintable() or "{{" in rest or "}}" in rest:
        raise InvalidRequest(
            f"a username template has up to {_LONGEST_TEMPLATE} characters, {{{{…}}}} in pairs"
        )
    return template


def _filled(place: str, values: Mapping[str, str], random: Callable[[int], str]) -> str:
    first, *steps = (part.strip() for part in place.split("|"))
    source = _SOURCE.fullmatch(first)
    if source is None:
        raise InvalidRequest("a username template has .DisplayName, .RoleName, random N and unix_time")
    text = random(int(source[2])) if source[2] else values[source[1]]
    for step in steps:
        known = _STEP.fullmatch(step)
        if known is None:
            raise InvalidRequest("a username template knows truncate N, lowercase and uppercase")
        text = text[: int(known[1] or len(text))]
        if not known[1]:
            text = text.lower() if step == "lowercase" else text.upper()
    return text
