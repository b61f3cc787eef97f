"""Leases are renewed in one round trip (``secrethub/storage/lease_renewals.py``)."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# First the lock, then the fences: each statement sees what was committed before it began. What is neither
# ``stale`` nor ``done`` has changed, was revoked, or is over. Rows are locked in the order of their ids, so
# that two processes never wait for each other in a circle.
_RENEW = """
CREATE FUNCTION leases_renew(
    p_ids text[], p_revisions bigint[], p_renewed_at bigint[], p_expires_at bigint[], p_macs bytea[],
    p_generations bigint[], p_epochs bigint[])
RETURNS TABLE (lease text, result text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_generation bigint;
    v_epoch bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7305086391846015);
    SELECT generation, seal_epoch INTO v_generation, v_epoch FROM cluster WHERE NOT sealed;
    RETURN QUERY
        SELECT u.id, 'stale' FROM unnest(p_ids, p_generations, p_epochs) AS u(id, generation, epoch)
        WHERE u.generation IS DISTINCT FROM v_generation OR u.epoch IS DISTINCT FROM v_epoch;
    RETURN QUERY
        WITH held AS (
            SELECT l.id, w.revision, w.renewed_at, w.expires_at, w.mac FROM leases l
            JOIN unnest(p_ids, p_revisions, p_renewed_at, p_expires_at, p_macs, p_generations, p_epochs)
                AS w(id, revision, renewed_at, expires_at, mac, generation, epoch)
                ON l.id = w.id AND l.revision = w.revision - 1
            WHERE w.generation = v_generation AND w.epoch = v_epoch
                AND l.state = 'live' AND l.revoked_at IS NULL
                AND l.expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
            ORDER BY l.id FOR NO KEY UPDATE OF l)
        UPDATE leases SET revision = held.revision, renewed_at = held.renewed_at,
            expires_at = held.expires_at, mac = held.mac, due_at = to_timestamp(held.expires_at / 1000000.0)
        FROM held WHERE leases.id = held.id RETURNING leases.id, 'done';
END $$
"""


def upgrade() -> None:
    """Create the function."""
    op.execute(_RENEW)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP FUNCTION leases_renew")
