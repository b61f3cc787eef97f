"""The flat view's place: ``secrets/…`` is rewritten to ``secret/…`` before any engine is looked for.

The mount exists so that it is listed and that nothing else can be mounted there.
"""

from __future__ import annotations

from secrethub.engines.engine import Operation


class FlatEngine:
    """Engine kind ``flat``: no operations of its own."""

    kind = "flat"

    def operations(self) -> tuple[Operation, ...]:
        """Return nothing: every request was rewritten."""
        return ()

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount
