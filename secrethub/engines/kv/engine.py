"""Key/value secrets, version 2: every write makes a version, versions are sealed one by one.

Vault's paths below the mount, and SecretHub's own beside them. The flat view ``secrets/`` comes here
too, rewritten before any decision. One module an area; ``store.py`` has what they share.
"""

from __future__ import annotations

from secrethub.engines.engine import Operation
from secrethub.engines.kv.config import config_operations
from secrethub.engines.kv.data import data_operations
from secrethub.engines.kv.history import history_operations
from secrethub.engines.kv.metadata import metadata_operations, native_prefix
from secrethub.engines.kv.search import search_operations
from secrethub.engines.kv.usage import usage_operations
from secrethub.engines.kv.versions import version_operations


class KvEngine:
    """Engine kind ``kv``."""

    kind = "kv"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a key/value mount offers."""
        return (
            *data_operations(),
            *metadata_operations(),
            *version_operations(),
            *config_operations(),
            *history_operations(),
            *search_operations(),
            *usage_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write ``secrets/…`` for the store at ``secret/``."""
        return native_prefix(mount)
