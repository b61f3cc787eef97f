"""The functions of the hot path: one round trip and one commit each."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Every function takes the freshness lock (see secrethub/storage/freshness.py) before it looks at the
# generation. Each statement of a volatile plpgsql function has its own snapshot, so what is read after
# the lock was granted includes whatever the lock's previous holder committed.

# What became visible between two snapshots: the transactions that began after the first, and those that
# were under way then. So each change is told once, however long some transaction keeps an old snapshot.
_FRESHNESS = """
CREATE FUNCTION freshness(p_since text)
RETURNS TABLE (generation bigint, seal_epoch bigint, sealed boolean, gap boolean, cursor text,
               sequence bigint, kind text, key text, version bigint, revision bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_since pg_snapshot := p_since::pg_snapshot;
    v_next bigint := pg_snapshot_xmax(v_since)::text::bigint;
    v_open bigint[] := ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(v_since) AS x);
BEGIN
    RETURN QUERY
        SELECT c.generation, c.seal_epoch, c.sealed,
               COALESCE(c.changes_pruned_below > v_next
                        OR pg_snapshot_xmax(pg_current_snapshot())::text::bigint < v_next, false),
               pg_current_snapshot()::text, h.sequence, h.kind, h.key, h.version,
               h.revision
        FROM cluster c
        LEFT JOIN LATERAL (
            (SELECT * FROM changes WHERE changes.txid >= v_next ORDER BY changes.txid LIMIT 20000)
            UNION ALL
            (SELECT * FROM changes WHERE changes.txid = ANY(v_open))
        ) h ON true;
END $$
"""

# A stream is continued only after the entry that its writer knows as the newest. That keeps (stream, number)
# unique and without gaps, and a database that lost entries (a failover) is found out: SH001.
_LEDGER_APPEND = """
CREATE FUNCTION ledger_append(p_stream text, p_entries json, p_before bigint, p_previous bytea,
                              p_number bigint, p_hash bytea, p_signature bytea)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_before = 0 THEN
        INSERT INTO audit_streams VALUES (p_stream, p_number, p_hash, p_signature);
    ELSE
        UPDATE audit_streams SET number = p_number, hash = p_hash, signature = p_signature
            WHERE stream = p_stream AND number = p_before AND hash = p_previous;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the stream does not end with entry %', p_before USING ERRCODE = 'SH001';
        END IF;
    END IF;
    INSERT INTO audit_entries
        SELECT p_stream, e.n, e.t, e.k, e.q, e.a, e.o, e.p, e.u, e.r, e.c, e.d, e.x,
               decode(e.h, 'base64'), decode(e.s, 'base64')
        FROM json_to_recordset(p_entries) AS e(n bigint, t bigint, k text, q text, a text, o text, p text,
            u text, r text, c text, d text, x text, h text, s text);
END $$
"""

_LEDGER_COMMIT = """
CREATE FUNCTION ledger_commit(p_stream text, p_entries json, p_before bigint, p_previous bytea,
                              p_number bigint, p_hash bytea, p_signature bytea, p_since text)
RETURNS TABLE (generation bigint, seal_epoch bigint, sealed boolean, gap boolean, cursor text,
               sequence bigint, kind text, key text, version bigint, revision bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7305086391846015);
    PERFORM ledger_append(p_stream, p_entries, p_before, p_previous, p_number, p_hash, p_signature);
    RETURN QUERY SELECT * FROM freshness(p_since);
END $$
"""

# Makes the ledger's parts for this month and some after it, and returns how many were missing. An entry that
# came before its month's part moves there. Attaching, unlike CREATE TABLE … PARTITION OF, lets others write.
_LEDGER_MONTHS = """
CREATE FUNCTION ledger_months(p_ahead integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_month timestamp;
    v_name text;
    v_from bigint;
    v_until bigint;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7305086391846020);
    FOR i IN 0..p_ahead LOOP
        v_month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i);
        v_name := 'audit_entries_' || to_char(v_month, 'YYYY_MM');
        CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
        v_from := extract(epoch FROM v_month)::bigint * 1000000;
        v_until := extract(epoch FROM v_month + interval '1 month')::bigint * 1000000;
        IF i = 0 THEN
            -- Whoever is writing has chosen the part for all others already, which will refuse the entry.
            PERFORM pg_advisory_xact_lock(7305086391846015);
        END IF;
        LOCK TABLE audit_entries_other IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE %I (LIKE audit_entries, PRIMARY KEY (stream, number))', v_name);
        EXECUTE format('WITH moved AS (DELETE FROM audit_entries_other WHERE at >= $1 AND at < $2 RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', v_name) USING v_from, v_until;
        EXECUTE format('ALTER TABLE audit_entries ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       v_name, v_from, v_until);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$
"""

# Removes parts of months that are over and were emptied, and returns how many.
_LEDGER_DROP_MONTHS = """
CREATE FUNCTION ledger_drop_months() RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_present text := 'audit_entries_' || to_char(now() AT TIME ZONE 'UTC' - interval '1 day', 'YYYY_MM');
    v_name text;
    v_empty boolean;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7305086391846020);
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'audit_entries'::regclass AND c.relname ~ '^audit_entries_[0-9]{4}_[0-9]{2}$'
              AND c.relname < v_present
    LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM %I)', v_name) INTO v_empty;
        CONTINUE WHEN NOT v_empty;
        LOCK TABLE audit_entries IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM %I)', v_name) INTO v_empty;
        CONTINUE WHEN NOT v_empty;
        EXECUTE format('DROP TABLE %I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$
"""

_KV_PUT = """
CREATE FUNCTION kv_put(
    p_generation bigint, p_epoch bigint, p_store text, p_path text, p_id text, p_revision bigint,
    p_version integer, p_oldest integer, p_max_versions integer, p_cas_required boolean,
    p_delete_after bigint, p_custom text, p_created_at bigint, p_updated_at bigint, p_versions text,
    p_mac bytea, p_sealed bytea, p_change_key text)
RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows integer;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7305086391846015);
    PERFORM 1 FROM cluster
        WHERE cluster.generation = p_generation AND cluster.seal_epoch = p_epoch AND NOT cluster.sealed;
    IF NOT FOUND THEN
        RETURN 'stale';
    END IF;
    IF p_revision = 1 THEN
        INSERT INTO kv_secrets VALUES (p_store, p_path, p_id, 1, p_version, p_oldest, p_max_versions,
            p_cas_required, p_delete_after, p_custom, p_created_at, p_updated_at, p_versions, p_mac)
            ON CONFLICT (store, path) DO NOTHING;
    ELSE
        UPDATE kv_secrets SET revision = p_revision, current_version = p_version,
            oldest_version = p_oldest, max_versions = p_max_versions, cas_required = p_cas_required,
            delete_version_after = p_delete_after, custom_metadata = p_custom,
            updated_at = p_updated_at, versions = p_versions, mac = p_mac
            WHERE store = p_store AND path = p_path AND id = p_id AND revision = p_revision - 1;
    END IF;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    IF v_rows = 0 THEN
        RETURN 'moved';
    END IF;
    INSERT INTO kv_versions (id, version, sealed) VALUES (p_id, p_version, p_sealed);
    IF p_oldest > 1 THEN
        DELETE FROM kv_versions WHERE id = p_id AND version < p_oldest;
    END IF;
    INSERT INTO changes (kind, key, version, revision)
        VALUES ('kv', p_change_key, p_version, p_revision);
    RETURN 'done';
END $$
"""

# Many writes in one transaction and one round trip. In the order of their paths, so that two processes
# never wait for each other's rows in a circle.
_KV_PUT_MANY = """
CREATE FUNCTION kv_put_many(p_puts json)
RETURNS TABLE (number integer, result text)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v record;
BEGIN
    FOR v IN
        SELECT * FROM json_to_recordset(p_puts) AS e(n integer, g bigint, e bigint, s text, p text, i text,
            r bigint, v integer, o integer, m integer, c boolean, d bigint, t text, b bigint, u bigint,
            w text, h text, x text, k text)
        ORDER BY e.s, e.p COLLATE "C", e.n
    LOOP
        number := v.n;
        result := kv_put(v.g, v.e, v.s, v.p, v.i, v.r, v.v, v.o, v.m, v.c, v.d, v.t, v.b, v.u,
                         v.w, decode(v.h, 'base64'), decode(v.x, 'base64'), v.k);
        RETURN NEXT;
    END LOOP;
END $$
"""

# Announces every write to an authority row, also one made by hand, so that no process goes on with a
# copy in memory: it reads the row again and finds out whether it is authentic.
_ANNOUNCE = """
CREATE FUNCTION authority_announce() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_key text := CASE WHEN TG_OP = 'DELETE' THEN OLD.key ELSE NEW.key END;
    v_bucket integer := CASE WHEN TG_OP = 'DELETE' THEN OLD.bucket ELSE NEW.bucket END;
BEGIN
    INSERT INTO changes (kind, key, version)
        SELECT COALESCE(NULLIF(current_setting('secrethub.change', true), ''), 'authority'),
               TG_TABLE_NAME || '/' || v_key,
               COALESCE((SELECT b.revision FROM authority_buckets b
                         WHERE b.table_name = TG_TABLE_NAME AND b.bucket = v_bucket), 0);
    RETURN NULL;
END $$
"""

# The number of the data key that a value is sealed with (secrethub/crypto/aead.py): how values of older keys
# are found and counted. What cannot be such a value counts as sealed with the oldest.
# Neither calls the other: while an index is built only functions of PostgreSQL itself are found.
_SEALED_UNDER = (
    """
CREATE FUNCTION sealed_under(p_sealed bytea) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN length(p_sealed) >= 5
        THEN ('x' || encode(substring(p_sealed FROM 2 FOR 4), 'hex'))::bit(32)::bigint ELSE 0 END
$$
""",
    """
CREATE FUNCTION sealed_under(p_sealed text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_sealed = '' OR p_sealed IS NULL THEN NULL
        WHEN left(p_sealed, 8) ~ '^[A-Za-z0-9+/]{8}$'
        THEN ('x' || encode(substring(decode(left(p_sealed, 8), 'base64') FROM 2 FOR 4), 'hex'))
             ::bit(32)::bigint
        ELSE 0 END
$$
""",
    "CREATE INDEX kv_versions_sealed_under ON kv_versions (sealed_under(sealed))",
    *(
        f"CREATE INDEX {table}_{field}_under ON {table} (sealed_under(body->>'{field}'))"
        for table, field in (
            ("tokens", "accessor"),
            ("cubbyholes", "entries"),
            ("cubbyholes", "response"),
            ("certificate_authorities", "key"),
            ("audit_settings", "authorization"),
            ("audit_settings", "secret_access_key"),
            ("rotations", "config"),
            ("rotations", "work"),
            ("engine_configs", "secrets"),
            ("engine_roles", "secrets"),
        )
    ),
)

_TABLES = (
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


def upgrade() -> None:
    """Create the functions."""
    for statement in (
        _FRESHNESS,
        _LEDGER_APPEND,
        _LEDGER_COMMIT,
        _LEDGER_MONTHS,
        _LEDGER_DROP_MONTHS,
        _KV_PUT,
        _KV_PUT_MANY,
        _ANNOUNCE,
    ):
        op.execute(statement)
    for statement in _SEALED_UNDER:
        op.execute(statement)
    op.execute("SELECT ledger_months(3)")
    for name in _TABLES:
        op.execute(
            f"""CREATE TRIGGER {name}_announce AFTER INSERT OR UPDATE OR DELETE ON {name}
                FOR EACH ROW EXECUTE FUNCTION authority_announce()"""
        )


def downgrade() -> None:
    """Drop the functions."""
    for kind in ("bytea", "text"):
        op.execute(f"DROP FUNCTION sealed_under({kind}) CASCADE")
    for name in _TABLES:
        op.execute(f"DROP TRIGGER {name}_announce ON {name}")
    for statement in (
        _ANNOUNCE,
        _KV_PUT_MANY,
        _KV_PUT,
        _LEDGER_MONTHS,
        _LEDGER_DROP_MONTHS,
        _LEDGER_COMMIT,
        _LEDGER_APPEND,
        _FRESHNESS,
    ):
        op.execute(f"DROP FUNCTION {statement.split('FUNCTION ', 1)[1].partition('(')[0]}")
