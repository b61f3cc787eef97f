"""Whatever is sent, by whomever: an answer or an error of ours, and an entry for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from authority_core import Running, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secrethub.engines.engine import Answer, Method
from secrethub.errors import SecretHubError, TooManyRequests
from secrethub.ids import new_uuid
from secrethub.operations.call import Call, Token
from secrethub.operations.perform import perform
from secrethub.sensitive import Sensitive
from tests.gateway.behind import sql
from tests.gateway.conftest import native

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
    | st.sampled_from(
        ["1h", "-1s", "768h", "root", "default", "10.0.0.0/8", "\x00", "1e999", "99999999999h"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_FIELDS = [
    *("data", "options", "cas", "policy", "rules", "policies", "ttl", "explicit_max_ttl", "meta", "type"),
    *("display_name", "no_parent", "renewable", "increment", "role_id", "secret_id", "metadata", "cidr_list"),
    *("num_uses", "token_policies", "token_ttl", "token_max_ttl", "secret_id_ttl", "secret_id_num_uses"),
    *("secret_id_bound_cidrs", "description", "common_name", "alt_names", "ip_sans", "role", "csr", "name"),
    *("version", "labels"),
]
_BODIES = st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=5).map(
    msgspec.json.encode
) | st.sampled_from(
    [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b'{"a":1}x', b'{"data":' * 200, b'{"a":"\\ud800"}']
)
_PATHS = st.sampled_from(
    [
        *("secrets", "secrets/a", "secrets/a/b", "secrets/dynamic/x", "secret/data/a", "secret/metadata"),
        *("secret/metadata/a", "secret/config", "secret", "auth/token/create", "auth/token/lookup-self"),
        *("auth/token/renew-self", "auth/approle/login", "auth/approle/role", "auth/approle/role/web"),
        *("auth/approle/role/web/role-id", "auth/approle/role/web/secret-id", "auth/approle/role/-"),
        *("sys/mounts", "sys/mounts/team", "sys/mounts/secret/x", "sys/auth", "sys/policies/acl"),
        *("sys/policies/acl/p", "sys/policies/acl/root", "sys/policy/p", "sys/internal/ui/mounts"),
        *("sys/internal/ui/mounts/secret/a", "sys/audit/verify", "agents", "agents/x", "agents/enroll"),
        *("agents/enroll/begin", "pki/issue", "pki/issue/default", "pki/ca", "pki/certs", "pki/cert/00"),
        *("nowhere", "nowhere/x", "team/data/a"),
    ]
)
_METHODS: list[Method] = ["read", "write", "delete", "list", "patch"]
_QUERIES = st.dictionaries(
    st.sampled_from(["version", "after", "limit", "list", "x"]),
    _TEXT | st.sampled_from(["0", "1", "-1", "999999999", "9" * 30, "\x00", "a/"]),
    max_size=2,
)


@pytest.fixture
async def hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process with a secret, a role and a policy."""
    async with running(database_url, tmp_path) as started:
        await started.ask("write", "sys/policies/acl/reader", {"policy": native("secrets/a/**")})
        await started.ask("write", "secrets/a", {"data": {"k": "v"}})
        await started.role("web", "reader")
        yield started


async def test_any_request_has_an_answer_and_an_entry(hub: Running) -> None:
    """No input makes a defect: each request ends in an answer or a known error, and is in the ledger."""
    made = await hub.ask("write", "auth/token/create", {"policies": ["reader"]})
    assert made.auth is not None
    tokens = [hub.root, made.auth.client_token, "hvs.unknown"]
    loop = asyncio.get_running_loop()

    async def ask(call: Call) -> Answer | SecretHubError:
        try:
            return await perform(hub.core, call)
        except SecretHubError as exc:
            return exc

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(_METHODS), _PATHS, _BODIES, _QUERIES, st.sampled_from([*tokens, None]))
    def one(method: Method, path: str, body: bytes, query: dict[str, str], token: str | None) -> None:
        call = Call(
            method=method,
            path=path,
            body=body,
            query=query,
            credential=None if token is None else Token(secret=Sensitive(token)),
            client_address="127.0.0.1",
            door="tls",
            request_id=new_uuid(),
        )
        result: Any = asyncio.run_coroutine_threadsafe(ask(call), loop).result()
        if isinstance(result, TooManyRequests):
            return
        if isinstance(result, SecretHubError):
            assert result.code not in {"internal", "stale", "unavailable", "integrity_failure"}, result
        found = asyncio.run_coroutine_threadsafe(
            sql(hub.url, "SELECT outcome FROM audit_entries WHERE request_id = $1", call.request_id), loop
        ).result()
        assert found, (method, path, result)

    await asyncio.to_thread(one)
