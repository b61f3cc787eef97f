"""Engine kind ``kv``: every write makes a version."""

from __future__ import annotations

from secrethub.engines.kv.engine import KvEngine

__all__ = ["KvEngine"]
