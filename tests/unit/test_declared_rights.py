"""What operations ask of their callers, told a second time: a declaration that asks for less is noticed.

Whether what is declared is enforced is another question (``tests/gateway/test_authorisation_matrix.py``).
"""

from __future__ import annotations

from secrethub.engines.engine import Operation
from secrethub.engines.kinds import engines

OPERATIONS = {
    (kind, one.method, one.pattern): one for kind, engine in engines().items() for one in engine.operations()
}

OF_METHOD = {"read": "read", "list": "list", "write": "update", "patch": "update", "delete": "delete"}
"""Native rules' word for a method."""

OTHERWISE = {
    # What ends a version, or brings it back, is one right.
    ("kv", "write", "delete/{path*}"): "delete",
    ("kv", "write", "undelete/{path*}"): "delete",
    ("kv", "write", "destroy/{path*}"): "delete",
    # They tell names.
    ("kv", "read", "search/{path?}"): "list",
    ("kv", "read", "search"): "list",
    ("kv", "read", "unused/{path?}"): "list",
    ("kv", "read", "unused"): "list",
    ("agents", "read", ""): "list",
    ("system", "read", "policy"): "list",
    # Reads of a secret that is made for the reader.
    ("database", "write", "creds/{role}"): "read",
    ("aws", "write", "creds/{role}"): "read",
    ("aws", "write", "sts/{role}"): "read",
    # One right for both methods.
    ("system", "read", "wrapping/lookup"): "update",
}

WITHOUT_TOKEN = {
    "system": {
        *("read health", "read seal-status", "read leader", "read init"),
        # Shares, or the one-time token of the first start, say who asks.
        *("write init", "write unseal", "write accept-restore"),
        *("write rekey/update", "write rekey/verify", "read rekey/init", "read rekey/verify"),
        *("write rekey-recovery-key/update", "write rekey-recovery-key/verify"),
        *("read rekey-recovery-key/init", "read rekey-recovery-key/verify"),
        *("read generate-root/attempt", "write generate-root/attempt", "delete generate-root/attempt"),
        "write generate-root/update",
        *("read seal/slots/attempt", "write seal/slots/update"),
        # The wrapping token itself does.
        *("read wrapping/lookup", "write wrapping/lookup"),
    },
    "approle": {"write login"},
    "userpass": {"write login/{user}"},
    "cert": {"write login"},
    # Certificates are no secrets.
    "pki": {
        *("read ca", "read ca/pem", "read ca_chain"),
        *("read cert/ca", "read cert/ca_chain", "read cert/{serial}"),
    },
}

SUDO_IN_VAULT = {
    "system": {
        *("read audit", "write audit/{name}", "delete audit/{name}"),
        *("read auth/{path*}", "write auth/{path*}", "delete auth/{path*}"),
        *("read auth/{path*}/tune", "write auth/{path*}/tune"),
        *("list leases/lookup", "list leases/lookup/{prefix*}"),
        *("write leases/revoke-force/{prefix*}", "write leases/revoke-prefix/{prefix*}"),
        *("write revoke-force/{prefix*}", "write revoke-prefix/{prefix*}"),
        *("write remount", "write rotate", "write rotate/config", "write seal", "write step-down"),
    },
    "token": {"list accessors", "write revoke-orphan"},
}
"""What Vault calls root-protected, as far as it is here."""

SUDO_BESIDES = {
    "system": {
        # The same under another path, or all of them.
        *("read mounts/auth/{path*}/tune", "write mounts/auth/{path*}/tune"),
        *("read leases", "read leases/top", "write leases/retry", "write leases/tidy"),
        # The ledger, which tells who does what.
        *(
            "read audit/entries",
            "read audit/export",
            "read audit/refusals/{request_id}",
            "write audit/verify",
        ),
        *("read audit/archive", "write audit/archive", "delete audit/archive", "read audit/archive/segments"),
        *("write audit/archive/run", "write audit/archive/verify", "write policies/replay"),
        # Who has which policies.
        *("list policies/bindings", "read policies/bindings/{name}", "write policies/bindings/{name}"),
        *("write policies/bindings/{name}/remove", "write policies/bound"),
        # The seal.
        *("write rekey/init", "delete rekey/init", "delete rekey/verify"),
        *("write rekey-recovery-key/init", "delete rekey-recovery-key/init"),
        "delete rekey-recovery-key/verify",
        *("write seal/slots", "delete seal/slots/{slot}", "write seal/slots/{slot}/test"),
        "delete seal/slots/attempt",
    },
    "kv": {"read readers/{path*}", "read unused", "read unused/{path?}"},
    "database": {"write strays/{name}"},
    "aws": {"write strays"},
}


def _told(one: Operation) -> str:
    return f"{one.method} {one.pattern}"


def test_a_capability_is_that_of_the_method() -> None:
    """Native rules grant an operation by its method's word, but for those that say why not."""
    for place, one in OPERATIONS.items():
        assert one.capability == OTHERWISE.get(place, OF_METHOD[one.method]), place
    assert OTHERWISE.keys() <= OPERATIONS.keys()


def test_what_is_answered_without_a_token() -> None:
    """It is a short list, and every entry of it has its reason."""
    for kind, engine in engines().items():
        open_to_all = {
            _told(one) for one in engine.operations() if one.public or one.keyless or not one.audited
        }
        assert open_to_all == WITHOUT_TOKEN.get(kind, set()), kind


def test_what_takes_sudo() -> None:
    """Whatever is root-protected in Vault is here, and what is worth as much."""
    for kind, engine in engines().items():
        protected = {_told(one) for one in engine.operations() if one.sudo}
        assert protected == SUDO_IN_VAULT.get(kind, set()) | SUDO_BESIDES.get(kind, set()), kind
