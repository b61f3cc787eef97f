"""The flat view ``secrets/`` of the store at ``secret/``: one store, one set of rules."""

from __future__ import annotations

from secrethub.engines.engine import Method

_FLAT = "secrets/"
_RESERVED = "secrets/dynamic/"


def flat_view(method: Method, path: str) -> str:
    """Rewrite a path of the flat view to the store's own, before anything else looks at it."""
    if path == "secrets":
        return "secret/metadata" if method == "list" else path
    if not path.startswith(_FLAT) or path.startswith(_RESERVED):
        return path
    return ("secret/metadata/" if method == "list" else "secret/data/") + path[len(_FLAT) :]
