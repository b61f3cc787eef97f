"""Tokens (Vault's auth method ``token``): made, looked up, renewed, revoked, counted, tidied away.

Service tokens are rows of authority. Batch tokens say everything themselves (``secrethub/auth/batch.py``).
"""

from __future__ import annotations

from secrethub.engines.engine import Operation
from secrethub.engines.token.creation import creation_operations
from secrethub.engines.token.issuing import issue_batch, issue_token
from secrethub.engines.token.lookup import lookup_operations
from secrethub.engines.token.renewal import renewal_operations
from secrethub.engines.token.revocation import revocation_operations
from secrethub.engines.token.roles import role_operations
from secrethub.engines.token.tidying import tidy_operations

__all__ = ["TokenEngine", "issue_batch", "issue_token"]


class TokenEngine:
    """Auth method ``token``."""

    kind = "token"

    def operations(self) -> tuple[Operation, ...]:
        """Return what ``auth/token/`` offers."""
        return (
            *creation_operations(),
            *lookup_operations(),
            *renewal_operations(),
            *revocation_operations(),
            *role_operations(),
            *tidy_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount
