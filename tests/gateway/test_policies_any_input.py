"""Whatever is sent to the endpoints of policies, there is an answer and an entry, and no new right."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secrethub.engines.engine import Answer
from secrethub.errors import PermissionDenied, SecretHubError, TooManyRequests
from secrethub.ids import new_uuid
from secrethub.operations.call import Call, Token
from secrethub.operations.perform import perform
from secrethub.policy.templates import TEMPLATES
from secrethub.sensitive import Sensitive
from tests.gateway.behind import mount_id, sql
from tests.gateway.test_refusals_any_input import Running, hub

__all__ = ["hub"]  # the fixture

_NATIVE = {
    "version": "1",
    "statements": [{"effect": "allow", "paths": ["secrets/x/{{agent.id}}"], "capabilities": ["read"]}],
}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["reader", "new", "root", "default", "a b", "..", "\x00", "R" * 200]),
    "policy": st.sampled_from([_NATIVE, "", "{", 'path "a" { policy = "read" }', "\x00", {"path": {}}, []]),
    "since": st.sampled_from(
        ["1d", "7d", 0, -1, "2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "T", "\x00"]
    ),
    "until": st.sampled_from(["2100-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "x", 5]),
    "actor": st.sampled_from(["", "token:", "agent:%", "\x00", "ü", "token:" + "f" * 5000]),
    "after": st.sampled_from(["", "1.2.3", f"1.{new_uuid()}.1", f"{'9' * 18}.{new_uuid()}.{'9' * 18}", "."]),
    "attach": st.sampled_from([True, False, "true", 1]),
    "parameters": st.dictionaries(
        st.sampled_from(
            ["paths", "until", "from", "zone", "networks", "prefix", "by", "max_ttl", "weekdays"]
        ),
        st.text(max_size=8) | st.lists(st.text(max_size=8), max_size=3) | st.none() | st.integers(),
        max_size=4,
    ),
    "role": st.sampled_from(["web", "nobody", "../web", "auth/approle/web", "/", "", "\x00", 7]),
    "user": st.sampled_from(["ada", "people/ada", "", "//", "\x00"]),
    "agent": st.sampled_from([new_uuid(), "x", "", None, []]),
    "accessor": st.sampled_from(["x", "", "\x00", "a" * 300]),
    "path": st.sampled_from(["secrets/a", "sys/policies/acl/Reader", "a/../b", "", "\x00", "ü"]),
    "capability": st.sampled_from(["read", "create", "sudo", "x"]),
    "policies": st.lists(st.sampled_from(["reader", "root", "x", "\x00"]), max_size=2),
    "documents": st.lists(st.sampled_from([_NATIVE, "{", {}, "x"]), max_size=2),
    "at": st.sampled_from(["2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "x"]),
}
_BODIES = st.lists(st.sampled_from(sorted(_VALUES)), max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: _VALUES[name] for name in names})
)
_PATHS = st.sampled_from(
    [
        *("sys/policies/bindings", "sys/policies/bound", "sys/policies/replay", "sys/policies/simulate"),
        *(f"sys/policies/bindings/{name}" for name in ("reader", "root", "x", "READER", "reader/remove")),
        *("sys/policies/templates", "sys/policies/templates/x", "sys/policies/bindings/reader/x"),
        *(f"sys/policies/templates/{name}" for name in TEMPLATES),
    ]
)
_METHODS = st.sampled_from(["write", "write", "write", "read", "list", "delete", "patch"])


async def test_any_request(hub: Running) -> None:
    """Each request is answered or refused by name and written down; whoever has no right is only refused."""
    made = await hub.ask("write", "auth/token/create", {"policies": ["reader"]})
    assert made.auth is not None
    weak = made.auth.client_token
    loop = asyncio.get_running_loop()

    async def ask(call: Call) -> Answer | SecretHubError:
        try:
            return await perform(hub.core, call)
        except SecretHubError as exc:
            return exc

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_METHODS, _PATHS, _BODIES, st.sampled_from([hub.root, hub.root, weak]))
    def one(method: Any, path: str, body: dict[str, Any], token: str) -> None:
        call = Call(
            method=method,
            path=path,
            body=msgspec.json.encode(body),
            credential=Token(secret=Sensitive(token)),
            client_address="127.0.0.1",
            door="tls",
            request_id=new_uuid(),
        )
        result = asyncio.run_coroutine_threadsafe(ask(call), loop).result()
        if isinstance(result, TooManyRequests):
            return
        if token == weak:
            assert isinstance(result, PermissionDenied), (method, path, body)
        if isinstance(result, SecretHubError):
            assert result.code not in {"internal", "stale", "unavailable", "integrity_failure"}, result
        found = asyncio.run_coroutine_threadsafe(
            sql(hub.url, "SELECT outcome FROM audit_entries WHERE request_id = $1", call.request_id), loop
        ).result()
        assert found, (method, path, result)

    await asyncio.to_thread(one)
    # Of all that only what names the role and a written policy has bound anything.
    bound = await sql(hub.url, "SELECT key, body::text AS body FROM bindings")
    assert {row["key"] for row in bound} <= {f"approle/{await mount_id(hub.url)}/web"}
    assert all('["reader"]' in row["body"] for row in bound)
