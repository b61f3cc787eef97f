"""What connected agents say of themselves: what they use and confirm, and how their files are."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Which agents use which secrets (secrethub/storage/agent_watches.py).
_WATCHES = (
    """
CREATE TABLE agent_watches (
    key text COLLATE "C" NOT NULL,
    agent text COLLATE "C" NOT NULL,
    session text NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (key, agent)
)
""",
    "CREATE INDEX agent_watches_agent ON agent_watches (agent)",
)

# How agents' files are (secrethub/storage/agent_reports.py).
_REPORTS = """
CREATE TABLE agent_reports (
    agent text COLLATE "C" PRIMARY KEY,
    files integer NOT NULL,
    failing integer NOT NULL,
    failures text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

# Commands that agents are to run for rotations (secrethub/storage/agent_orders.py).
_ORDERS = (
    """
CREATE TABLE agent_orders (
    rotation text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    step text NOT NULL,
    attempt integer NOT NULL,
    key text NOT NULL,
    agent text COLLATE "C" NOT NULL,
    taken integer NOT NULL,
    outcome text NOT NULL,
    said text NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (rotation, run, step)
)
""",
    "CREATE INDEX agent_orders_open ON agent_orders (agent) WHERE outcome = ''",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in (*_WATCHES, _REPORTS, *_ORDERS):
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE agent_watches, agent_reports, agent_orders")
