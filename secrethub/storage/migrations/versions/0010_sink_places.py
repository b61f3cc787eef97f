"""Places of the ledger's sinks are authenticated (``secrethub/storage/sinks.py``)."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Nobody has a key here: what is there is signed when the sink is served next."""
    op.execute("ALTER TABLE audit_sink_positions ADD COLUMN mac bytea")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE audit_sink_positions DROP COLUMN mac")
