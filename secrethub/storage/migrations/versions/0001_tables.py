"""The first tables: cluster and seal, authority, key/value store, ledger, changes, locks, certificates."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

AUTHORITY_TABLES = (
    "tokens",
    "accessors",
    "cubbyholes",
    "policies",
    "mounts",
    "approles",
    "token_roles",
    "role_ids",
    "secret_ids",
    "login_failures",
    "users",
    "cert_roles",
    "agents",
    "pki_roles",
    "certificate_authorities",
    "bindings",
    "audit_settings",
    "settings",
    "quotas",
    "password_policies",
    "rotations",
    "engine_configs",
    "engine_roles",
)

_CLUSTER = """
CREATE TABLE cluster (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    cluster_id text NOT NULL,
    cluster_name text NOT NULL,
    dev boolean NOT NULL,
    created_at timestamptz NOT NULL,
    sealed boolean NOT NULL,
    seal_epoch bigint NOT NULL,
    unsealed_mac bytea NOT NULL,
    generation bigint NOT NULL,
    keyring_revision integer NOT NULL,
    wrapped_keyring bytea NOT NULL,
    root_version integer NOT NULL,
    timeline bigint NOT NULL DEFAULT 1,
    timeline_mac bytea NOT NULL,
    rolled_back text NOT NULL DEFAULT '',
    notary_public bytea NOT NULL,
    notary_mac bytea NOT NULL,
    wrapped_notary bytea NOT NULL,
    changes_pruned_below bigint NOT NULL DEFAULT 0
)
"""

_SLOTS = """
CREATE TABLE seal_slots (
    slot_id text PRIMARY KEY,
    kind text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL,
    mac bytea NOT NULL
)
"""

# How often each data key of the keyring may have been used (secrethub/storage/data_keys.py).
_DATA_KEYS = "CREATE TABLE data_keys (number bigint PRIMARY KEY, reserved bigint NOT NULL)"

_KEY_USERS = """
CREATE TABLE key_users (
    process text PRIMARY KEY,
    shown text NOT NULL,
    seal_epoch bigint NOT NULL,
    seen_at timestamptz NOT NULL
)
"""

_EPOCHS = "CREATE TABLE epochs (name text PRIMARY KEY, epoch bigint NOT NULL)"

_CHANGES = """
CREATE TABLE changes (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    kind text NOT NULL,
    key text NOT NULL,
    version bigint NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

_AUTHORITY = """
CREATE TABLE {name} (
    key text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    body jsonb NOT NULL,
    owner text COLLATE "C",
    expires_at timestamptz,
    bucket integer NOT NULL,
    mac bytea NOT NULL
)
"""

_BUCKETS = """
CREATE TABLE authority_buckets (
    table_name text NOT NULL,
    bucket integer NOT NULL,
    revision bigint NOT NULL,
    digest bytea NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (table_name, bucket)
)
"""

_USED_UP = "CREATE INDEX tokens_used_up ON tokens (key) WHERE body->'uses_left' = '0'::jsonb"

_BY_ACCESSOR = "CREATE INDEX secret_ids_accessor ON secret_ids ((body->>'accessor'))"

# Rotations that ended (secrethub/storage/rotations.py).
_ROTATION_HISTORY = """
CREATE TABLE rotation_history (
    rotation text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    outcome text NOT NULL,
    trigger text NOT NULL,
    old_version integer NOT NULL,
    new_version integer NOT NULL,
    began_at bigint NOT NULL,
    ended_at bigint NOT NULL,
    missing integer NOT NULL,
    reason text NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (rotation, number)
)
"""

# Spent budgets of the last seconds: nobody is harmed when a crash of the server makes them whole again.
_QUOTA_LEVELS = """
CREATE UNLOGGED TABLE quota_levels (
    key text COLLATE "C" PRIMARY KEY,
    level double precision NOT NULL,
    granted double precision NOT NULL,
    at timestamptz NOT NULL,
    blocked_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
)
"""

_KV = (
    """
CREATE TABLE kv_secrets (
    store text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL UNIQUE,
    revision bigint NOT NULL,
    current_version integer NOT NULL,
    oldest_version integer NOT NULL,
    max_versions integer NOT NULL,
    cas_required boolean NOT NULL,
    delete_version_after bigint NOT NULL,
    custom_metadata text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    versions text NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (store, path)
)
""",
    """
CREATE TABLE kv_versions (
    id text COLLATE "C" NOT NULL REFERENCES kv_secrets (id) ON DELETE CASCADE,
    version integer NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (id, version)
)
""",
    "ALTER TABLE kv_versions ALTER COLUMN sealed SET STORAGE EXTERNAL",
)

# Cut into months by the functions of the next revision. What belongs to no month there is goes into
# audit_entries_other, so that no entry is ever refused for want of one. Each part has its own primary key:
# one of the whole would have to contain the instant.
_LEDGER = (
    """
CREATE TABLE audit_entries (
    stream text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL,
    request_id text NOT NULL,
    actor text NOT NULL,
    operation text NOT NULL,
    path text NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    client text NOT NULL,
    door text NOT NULL,
    detail text NOT NULL,
    hash bytea NOT NULL,
    signature bytea NOT NULL
) PARTITION BY RANGE (at)
""",
    "CREATE TABLE audit_entries_other PARTITION OF audit_entries DEFAULT",
    "ALTER TABLE audit_entries_other ADD PRIMARY KEY (stream, number)",
    # The newest entry of each stream, written with it: a stream is only continued where it ends. It proves
    # nothing; it tells whoever follows the ledger where to look. Room for the next version of a row on its
    # page: it is written with every commit.
    """
CREATE TABLE audit_streams (
    stream text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    signature bytea NOT NULL
) WITH (fillfactor = 40)
""",
)

# How far each sink (by the UUID of its row in audit_settings) has got, and how it fares.
_SINKS = (
    """
CREATE TABLE audit_sink_positions (
    sink text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (sink, stream)
)
""",
    """
CREATE TABLE audit_sinks (
    sink text COLLATE "C" PRIMARY KEY,
    fencing bigint NOT NULL DEFAULT 0,
    node text NOT NULL DEFAULT '',
    delivered bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    failed_at timestamptz,
    error text NOT NULL DEFAULT ''
)
""",
)

_CHECKPOINTS = """
CREATE TABLE audit_checkpoints (
    sequence bigint PRIMARY KEY,
    timeline bigint NOT NULL,
    epoch bigint NOT NULL,
    at bigint NOT NULL,
    previous bytea NOT NULL,
    streams bigint NOT NULL,
    root bytea NOT NULL,
    heads bytea NOT NULL,
    signature bytea NOT NULL
)
"""

# The leaves of the newest checkpoint's tree, for the notary that takes over.
_NOTARISED = """
CREATE TABLE notarised_streams (
    stream text COLLATE "C" PRIMARY KEY,
    place bigint NOT NULL UNIQUE,
    number bigint NOT NULL,
    hash bytea NOT NULL
)
"""

_LEDGER_INDEXES = (
    "CREATE INDEX audit_entries_at ON audit_entries (at)",
    # Searching (secrethub/storage/ledger_search.py). What is searched for is short; what is stored may be
    # longer than an index takes. Entries of the most frequent kinds have no place in the partial ones.
    "CREATE INDEX audit_entries_request ON audit_entries (hashtextextended(request_id, 0))",
    "CREATE INDEX audit_entries_actor ON audit_entries (hashtextextended(left(actor, 42), 0), at)",
    """CREATE INDEX audit_entries_name ON audit_entries (hashtextextended(substr(actor, 44), 0), at)
       WHERE substr(actor, 44) <> ''""",
    """CREATE INDEX audit_entries_path ON audit_entries ((left(path, 128) COLLATE "C"), at)""",
    """CREATE INDEX audit_entries_operation ON audit_entries (operation, at)
       WHERE operation NOT IN ('kv.read', 'kv.write')""",
    """CREATE INDEX audit_entries_outcome ON audit_entries (outcome, at)
       WHERE outcome NOT IN ('done', 'begun')""",
    "CREATE INDEX audit_entries_adopt ON audit_entries (stream) WHERE kind = 'adopt'",
    "CREATE INDEX audit_entries_unsigned ON audit_entries (stream, number) WHERE signature = ''::bytea",
    # Who read a secret (secrethub/storage/kv_usage.py). A path may be longer than an index takes.
    """
CREATE INDEX audit_entries_reads ON audit_entries (hashtextextended(path, 0), at)
    WHERE outcome = 'done' AND operation IN ('kv.read', 'kv.compare')
""",
)

_OTHERS = (
    """
CREATE TABLE locks (
    name text PRIMARY KEY,
    owner text,
    fencing bigint NOT NULL,
    expires_at timestamptz NOT NULL
)
""",
    """
CREATE TABLE certificates (
    serial text PRIMARY KEY,
    mount text NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    issued_at timestamptz NOT NULL,
    not_after timestamptz NOT NULL,
    revoked_at timestamptz,
    pem text NOT NULL
)
""",
    "CREATE INDEX certificates_mount ON certificates (mount, serial)",
    """
CREATE TABLE enrollments (
    nonce_digest bytea PRIMARY KEY,
    token text NOT NULL,
    expires_at timestamptz NOT NULL
)
""",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in (
        _CLUSTER,
        _SLOTS,
        _KEY_USERS,
        _DATA_KEYS,
        _EPOCHS,
        _CHANGES,
        "CREATE INDEX changes_txid ON changes (txid)",
    ):
        op.execute(statement)
    for name in AUTHORITY_TABLES:
        op.execute(_AUTHORITY.format(name=name))
        op.execute(f"CREATE INDEX {name}_bucket ON {name} (bucket)")
        op.execute(f"CREATE INDEX {name}_owner ON {name} (owner) WHERE owner IS NOT NULL")
        op.execute(f"CREATE INDEX {name}_expires ON {name} (expires_at) WHERE expires_at IS NOT NULL")
    op.execute(_BUCKETS)
    op.execute(_QUOTA_LEVELS)
    op.execute("CREATE INDEX quota_levels_expires ON quota_levels (expires_at)")
    op.execute(_USED_UP)
    op.execute(_BY_ACCESSOR)
    for statement in (
        *_KV,
        *_LEDGER,
        _CHECKPOINTS,
        _NOTARISED,
        *_LEDGER_INDEXES,
        *_SINKS,
        _ROTATION_HISTORY,
        *_OTHERS,
    ):
        op.execute(statement)


def downgrade() -> None:
    """There is nothing before the first revision."""
    raise RuntimeError("the first revision cannot be taken back; drop the database instead")
