"""What has changed is found by the index of changes and planned once, however few there were then."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Left to itself PostgreSQL planned the statement anew for each commit of the ledger, which took longer than
# the rest of it; or kept a plan that goes through all changes, made when they were few (22 ms at 100,000).
_SETTINGS = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}


def upgrade() -> None:
    """Let the function plan once, for many."""
    for name, value in _SETTINGS.items():
        op.execute(f"ALTER FUNCTION freshness(text) SET {name} TO {value}")


def downgrade() -> None:
    """Let it plan as PostgreSQL sees fit."""
    op.execute("ALTER FUNCTION freshness(text) RESET ALL")
