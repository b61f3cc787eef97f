"""Writes to rows of authority are announced without going through all buckets."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The table's name is a text here: compared with a ``name``, whose collation is another one, the primary key
# of authority_buckets is of no use, and each row that is written reads all of its 50,000 rows.
_ANNOUNCE = """
CREATE OR REPLACE FUNCTION authority_announce() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_table text := TG_TABLE_NAME;
    v_key text := CASE WHEN TG_OP = 'DELETE' THEN OLD.key ELSE NEW.key END;
    v_bucket integer := CASE WHEN TG_OP = 'DELETE' THEN OLD.bucket ELSE NEW.bucket END;
BEGIN
    INSERT INTO changes (kind, key, version)
        SELECT COALESCE(NULLIF(current_setting('secrethub.change', true), ''), 'authority'),
               v_table || '/' || v_key,
               COALESCE((SELECT b.revision FROM authority_buckets b
                         WHERE b.table_name = v_table AND b.bucket = v_bucket), 0);
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    """Replace the function."""
    op.execute(_ANNOUNCE)


def downgrade() -> None:
    """Leave it: what it does is the same."""
