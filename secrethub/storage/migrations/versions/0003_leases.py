"""Leases and the intents they come from (``secrethub/storage/leases.py``)."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Leases, and the intents of them (secrethub/storage/leases.py). What follows ``mac`` says when to work at
# one, and is not authenticated: at worst a lease ends early.
_LEASES = (
    """
CREATE TABLE leases (
    id text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    state text NOT NULL,
    mount text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    owner_name text NOT NULL,
    lineage text[] COLLATE "C" NOT NULL,
    issued_at bigint NOT NULL,
    renewed_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    max_expires_at bigint NOT NULL,
    renewable boolean NOT NULL,
    sealed bytea NOT NULL,
    mac bytea NOT NULL,
    due_at timestamptz,
    revoked_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    error text NOT NULL DEFAULT ''
)
""",
    "CREATE INDEX leases_due ON leases (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX leases_dead ON leases (id) WHERE due_at IS NULL",
    "CREATE INDEX leases_expires ON leases (expires_at)",
    "CREATE INDEX leases_mount ON leases (mount, role)",
    "CREATE INDEX leases_lineage ON leases USING gin (lineage)",
    "CREATE INDEX leases_sealed_under ON leases (sealed_under(sealed))",
)


def upgrade() -> None:
    """Create the table."""
    for statement in _LEASES:
        op.execute(statement)


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE leases")
