"""Engine kinds ``kv`` (version 2, every write makes a version) and ``kv-v1`` (one value a path)."""

from __future__ import annotations

from secrethub.engines.kv.engine import KvEngine
from secrethub.engines.kv.v1 import KvV1Engine

__all__ = ["KvEngine", "KvV1Engine"]
