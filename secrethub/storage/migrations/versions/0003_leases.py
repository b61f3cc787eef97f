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

# How many leases each role has, by the path that they were asked for at (secrethub/storage/lease_lists.py,
# lease_makings.py), so that nobody has to count them. A number has several slots, for whoever changes one
# keeps others from it until the commit. An id ends with a slash and 24 characters.
_COUNTS = (
    """
CREATE TABLE lease_counts (
    mount text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    slot integer NOT NULL,
    leases bigint NOT NULL,
    PRIMARY KEY (mount, path, role, slot)
) WITH (fillfactor = 50)
""",
    """
CREATE FUNCTION count_leases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lease_counts AS c
    SELECT mount, left(id, -25) AS path, role, pg_backend_pid() % 16, TG_ARGV[0]::bigint * count(*)
    FROM changed GROUP BY mount, path, role ORDER BY mount, path, role
    ON CONFLICT (mount, path, role, slot) DO UPDATE SET leases = c.leases + excluded.leases;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER leases_counted_in AFTER INSERT ON leases REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_leases('1')
""",
    """
CREATE TRIGGER leases_counted_out AFTER DELETE ON leases REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_leases('-1')
""",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in (*_LEASES, *_COUNTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE leases, lease_counts")
    op.execute("DROP FUNCTION count_leases")
