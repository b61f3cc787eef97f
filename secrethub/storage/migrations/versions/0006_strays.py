"""When targets were last searched for users without a lease (``secrethub/storage/stray_checks.py``)."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Not authenticated: at worst a search comes early, late or not at all, or its result is hidden. Whether
# anything is removed stands in the authentic row of the target.
_CHECKS = """
CREATE TABLE stray_checks (
    key text COLLATE "C" PRIMARY KEY,
    not_before timestamptz NOT NULL,
    checked_at timestamptz,
    spread double precision NOT NULL DEFAULT 1,
    strays integer NOT NULL DEFAULT 0,
    names text[] NOT NULL DEFAULT '{}',
    error text NOT NULL DEFAULT ''
)
"""


def upgrade() -> None:
    """Create the table."""
    op.execute(_CHECKS)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE stray_checks")
