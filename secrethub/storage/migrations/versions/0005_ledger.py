"""What is kept of what is gone: archived entries of the ledger, and secrets that were removed."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What was taken out of the ledger: the segments of its archive, and where each stream begins now.
_ARCHIVE = (
    """
CREATE TABLE audit_segments (
    number bigint PRIMARY KEY,
    pruned boolean NOT NULL DEFAULT false,
    manifest text NOT NULL
)
""",
    """
CREATE TABLE audit_pruned (
    stream text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL,
    hash bytea NOT NULL
)
""",
    # Where the checkpoints begin (secrethub/audit/checkpoint_base.py).
    """
CREATE TABLE audit_checkpoint_base (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    signed bytea NOT NULL
)
""",
)

# That a secret was removed (secrethub/storage/kv_ends.py).
_ENDS = (
    """
CREATE TABLE kv_ends (
    id text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    mac bytea NOT NULL
)
""",
    "CREATE INDEX kv_ends_at ON kv_ends (at)",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in (*_ARCHIVE, *_ENDS):
        op.execute(statement)


def downgrade() -> None:
    """Remove them."""
    for table in ("audit_segments", "audit_pruned", "audit_checkpoint_base", "kv_ends"):
        op.execute(f"DROP TABLE {table}")
