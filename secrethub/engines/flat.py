"""The flat view's place: ``secrets/…`` is rewritten to ``secret/…`` before any engine is looked for.

The mount exists so that it is listed and that nothing else can be mounted there.
"""

from __future__ import annotations

from secrethub.engines.engine import Method, Operation

_FLAT = "secrets/"
DYNAMIC = "secrets/dynamic/"
"""Kept free for engines that lease things out."""


def flat_view(method: Method, path: str) -> str:
    """Rewrite a path of the flat view to the store's own, before anything else looks at it."""
    if path == "secrets":
        return "secret/metadata" if method == "list" else path
    if not path.startswith(_FLAT) or path.startswith(DYNAMIC):
        return path
    return ("secret/metadata/" if method == "list" else "secret/data/") + path[len(_FLAT) :]


class FlatEngine:
    """Engine kind ``flat``: no operations of its own."""

    kind = "flat"

    def operations(self) -> tuple[Operation, ...]:
        """Return nothing: every request was rewritten."""
        return ()

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount
