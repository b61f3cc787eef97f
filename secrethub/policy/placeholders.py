"""Paths that are different for each agent: ``secrets/agents/{{agent.id}}/**`` in native documents.

Pure. A value is put in as data: of ``[A-Za-z0-9_.-]`` only, so it is no wildcard and adds no segment; never
beside a wildcard in one segment, where it would choose what the wildcard covers; never in the first segment,
where it would choose the mount.

Who is no agent has no values. A statement that allows then leaves the path out; one that denies takes any
value for it, as with every condition that cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from secrethub.ids import is_identity_value
from secrethub.policy import strict

AGENT_ID = "agent.id"
AGENT_NAME = "agent.name"
KNOWN = (AGENT_ID, AGENT_NAME)
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_STAND_IN = "x"


def has_placeholder(path: str) -> bool:
    """Tell whether a path that was found to be in order has a placeholder."""
    return "{{" in path


def check_placeholders(path: str, place: str) -> str:
    """Check a path as written and return it with something literal in the place of each placeholder.

    Raises:
        InvalidRequest: an unknown placeholder, or one where none may be.
    """
    segments = path.split("/")
    for index, segment in enumerate(segments):
        for name in _PLACEHOLDER.findall(segment):
            if name not in KNOWN:
                known = ", ".join(f"{{{{{one}}}}}" for one in KNOWN)
                strict.refuse(place, f"unknown placeholder {strict.quote(name)}; known are {known}")
        bare = _PLACEHOLDER.sub("", segment)
        if "{{" in bare or "}}" in bare or (bare != segment and ("{" in bare or "}" in bare)):
            strict.refuse(place, "{{ and }} stand around a placeholder, within one segment")
        if bare == segment:
            continue
        if index == 0:
            strict.refuse(place, "a placeholder cannot be in the first segment, which chooses the mount")
        if "*" in bare:
            strict.refuse(place, "a placeholder and a wildcard cannot be in one segment")
    return _PLACEHOLDER.sub(_STAND_IN, path)


def filled(path: str, values: Mapping[str, str], *, denies: bool) -> str | None:
    """Return a path for somebody; None for one that allows where a value is not known.

    Args:
        path: as written, in order.
        values: by the placeholder's name; what is no identity value counts as unknown.
        denies: whether the path is a denial's.
    """
    if not has_placeholder(path):
        return path
    if denies:
        return "/".join(_for_denial(segment, values) for segment in path.split("/"))
    if any(_value(values, name) is None for name in _PLACEHOLDER.findall(path)):
        return None
    return _PLACEHOLDER.sub(lambda match: values[match[1]], path)


def _for_denial(segment: str, values: Mapping[str, str]) -> str:
    if not has_placeholder(segment):
        return segment
    # Two that are not known are still one segment, so never the ** that stands for any number of them.
    return re.sub(r"\*+", "*", _PLACEHOLDER.sub(lambda match: _value(values, match[1]) or "*", segment))


def _value(values: Mapping[str, str], name: str) -> str | None:
    value = values.get(name)
    return value if value is not None and is_identity_value(value) else None
