"""Checkpoints are found by their instant (``secrethub/storage/checkpoints.py``, ``prunable``)."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.execute("CREATE INDEX audit_checkpoints_at ON audit_checkpoints (at)")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX audit_checkpoints_at")
