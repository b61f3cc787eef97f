"""JSON merge patch (RFC 7396) and what of a document may be told without its values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """Return ``target`` after ``patch``: null removes a field, objects are merged, all else replaces.

    Neither argument is changed.
    """
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def subkeys(document: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return the keys of a document, nested as they are, with null for every value.

    Args:
        document: decoded JSON.
        depth: levels that are shown, 0 for all; what lies deeper is null, as an empty object is.
    """
    return {
        name: subkeys(value, depth - 1 if depth else 0)
        if isinstance(value, Mapping) and value and depth != 1
        else None
        for name, value in document.items()
    }
