"""Whatever is sent, the answer is one of ours: no defect, no hang, no trace, and the node goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secrethub.engines.engine import Operation
from serve.timing import Timing
from tests.gateway.conftest import Node
from tests.gateway.kv import ok
from tests.gateway.raw_http import GUARD, ask, request, wire

BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")
# A token is hvs. or hvb. and then at random, py for instance.
TRACES = re.compile(rb'Traceback|File "|(?<!hvs)(?<!hvb)\.py|asyncpg|Internal Server Error')


def check(status: int, body: bytes) -> None:
    """An answer is never a defect, and tells nothing of the inside."""
    assert status < 500 or status == 503, (status, body)
    assert TRACES.search(body) is None, body


async def goes_on(node: Node) -> None:
    """The node answers; its health may not be good, for its loop stands still while examples are made."""
    assert (await node.call("GET", "auth/token/lookup-self")).status_code == 200


async def still_well(node: Node) -> None:
    """The node answers, and its ledger verifies."""
    # A quota that was written may leave nothing for the questions that come now.
    assert (await node.call("DELETE", "sys/quotas/rate-limit/fuzz")).status_code == 204
    await goes_on(node)
    assert (await node.call("POST", "sys/audit/verify")).json()["data"]["ok"] is True


METHODS = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "LIST", "LINK", "OPTIONS", "BREW", "M-SEARCH"]
)
TARGETS = st.sampled_from(
    [
        "/v1/sys/health",
        "/v1/secrets/a?list=true",
        "/v1/sys/seal-status",
        "/v1/auth/approle/login",
        "/v1/%",
        "*",
        "/",
    ]
)
LINES = st.sampled_from(
    [
        "Host: localhost",
        "Host: localhost",
        "Host: evil",
        "Content-Length: 2",
        "Content-Length: 20",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Connection: close",
        "Connection: keep-alive, Upgrade",
        "Upgrade: h2c",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "X-Vault-Token: hvs.x",
        "X-Vault-Token: " + "a" * 20_000,
        "X-Vault-Wrap-TTL: 1e400",
        "X-Vault-Namespace: ../root",
        "Origin: null",
        "Accept: application/x-ndjson",
        "TE: trailers",
        " folded",
        ": no name",
        "no colon",
        "X: \x00",
        "X: " + "a" * 2000,
    ]
)
TAILS = st.sampled_from(
    [
        b"",
        b"{}",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX: trailer\r\n\r\n",
        b"ffffffffffffffffffff\r\n",
        b"LIST ",
        b"L",
        b"\r\n\r\n",
        b"\x00\xff\n",
        b'{"role_id": "a", "secret_id": "b"}',
    ]
)
VERSIONS = st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTP/1.1", ""])
ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"])


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """Requests that are right, or wrong in a way or two, one after the other."""
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        end = draw(ENDS)
        head = [f"{draw(METHODS)} {draw(TARGETS)} {draw(VERSIONS)}", *draw(st.lists(LINES, max_size=5))]
        parts.append((end.join(head) + end + end).encode("latin-1") + draw(TAILS))
    return b"".join(parts)


RAW = st.lists(
    st.tuples(nearly_requests() | st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=3)),
    min_size=4,
    max_size=12,
)


async def spoken(node: Node, data: bytes, cuts: list[int]) -> bytes:
    """Send ``data`` in pieces and a last request that ends the connection; return all that comes."""
    async with wire(node) as connection:
        positions = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        with contextlib.suppress(ConnectionError):
            await connection.send(
                *(data[start:end] for start, end in itertools.pairwise(positions) if start < end),
                request("/v1/sys/seal-status", "Connection: close"),
            )
        return await connection.rest()


@given(RAW)
@BOUNDED
@pytest.mark.parametrize("timing", [Timing(head=0.2, body=0.2, linger=0.1)])
async def test_raw_bytes(node: Node, sent: list[tuple[bytes, list[int]]]) -> None:
    """Any bytes in any pieces get answers of ours, and every connection ends."""
    async with asyncio.timeout(GUARD):
        answers = await asyncio.gather(*(spoken(node, data, cuts) for data, cuts in sent))
    for answer in answers:
        assert not answer or STATUS_LINE.match(answer), answer[:100]
        for status in STATUS_LINE.findall(answer):
            check(int(status), answer)
    await goes_on(node)


PATH_TEXT = st.text(
    alphabet=st.sampled_from("ab/.%20fFeEcC:;?#&=+*~\\|\"'<>{}[]^`é\u0301\u202e\ud7ff日"), max_size=40
) | st.text(max_size=20)
PATHS = st.tuples(
    st.sampled_from(
        [
            "",
            "secrets/",
            "secret/data/",
            "secret/metadata/",
            "sys/",
            "auth/",
            "pki/",
            "agents/",
            "sys/mounts/",
            "sys/auth/",
            "sys/quotas/rate-limit/",
            "sys/tools/hash/",
        ]
    ),
    PATH_TEXT.map(
        lambda text: quote(text, safe="/%?;:&=+*~|'\"<>{}[]^`\\", errors="replace").replace("#", "%23")
    ),
).map("".join)
DESTRUCTIVE = re.compile(r"seal|step-down|revoke")


@given(st.lists(st.tuples(METHODS, PATHS), min_size=10, max_size=30))
@BOUNDED
async def test_paths(node: Node, asked: list[tuple[str, str]]) -> None:
    """Any path with any method is answered, with and without a token."""

    async def one(method: str, path: str, token: str) -> None:
        reply = await ask(node, request("/v1/" + path, f"X-Vault-Token: {token}", method=method), method)
        check(reply.status, reply.body)

    await asyncio.gather(
        *(
            one(method, path, token)
            for method, path in asked
            if not DESTRUCTIVE.search(path) and path.isascii() and " " not in path and '"' not in path
            for token in (node.root, "hvs.unknown")
        )
    )
    await goes_on(node)


FIELDS = [
    "data",
    "options",
    "cas",
    "policies",
    "policy",
    "ttl",
    "explicit_max_ttl",
    "display_name",
    "meta",
    "metadata",
    "num_uses",
    "role_id",
    "secret_id",
    "secret_id_num_uses",
    "secret_id_bound_cidrs",
    "secret_id_ttl",
    "token_policies",
    "token_ttl",
    "token_bound_cidrs",
    "cidr_list",
    "type",
    "description",
    "config",
    "key",
    "reset",
    "secret_shares",
    "secret_threshold",
    "init_token",
    "increment",
    "csr",
    "name",
    "labels",
    "common_name",
    "alt_names",
    "ip_sans",
    "version",
    "statements",
    "path",
    "rate",
    "interval",
    "group_by",
    "role",
    "bytes",
    "input",
    "format",
    "algorithm",
    "default_lease_ttl",
    "rate_limit_exempt_paths",
]
WRITES = [
    "secrets/fuzz",
    "secret/data/fuzz",
    "auth/token/create",
    "auth/token/renew-self",
    "auth/approle/login",
    "auth/approle/role/fuzz",
    "auth/approle/role/fuzz/role-id",
    "auth/approle/role/fuzz/secret-id",
    "sys/init",
    "sys/unseal",
    "sys/mounts/fuzz",
    "sys/policies/acl/fuzz",
    "sys/policy/fuzz",
    "sys/audit/verify",
    "pki/issue",
    "agents/enroll/begin",
    "agents/enroll",
    "sys/auth/fuzz",
    "sys/auth/approle/tune",
    "sys/mounts/secret/tune",
    "sys/quotas/rate-limit/fuzz",
    "sys/quotas/config",
    "sys/tools/random",
    "sys/tools/hash",
]
LEAVES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "",
            "0",
            "-1",
            "--1",
            "1h",
            "true",
            "a,b",
            "\x00",
            "root",
            "10.0.0.0/8",
            "{}",
            "[]",
            "*",
            "kv",
            "a" * 100000,
            "nan",
            "1e400",
            "../sys",
            "a%2fb",
            "YQ==",
        ]
    )
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES, max_size=6)
BODIES = (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)


@given(st.lists(st.tuples(st.sampled_from(WRITES), BODIES), min_size=10, max_size=30))
@BOUNDED
async def test_bodies(node: Node, sent: list[tuple[str, bytes]]) -> None:
    """Any body at any endpoint that takes one is carried out or refused, with and without a token."""

    async def one(path: str, body: bytes, token: str) -> None:
        answer = await node.call("POST", path, token, content=body)
        check(answer.status_code, answer.content)
        assert answer.status_code == 204 or isinstance(answer.json(), dict)

    await asyncio.gather(*(one(path, body, token) for path, body in sent for token in (node.root, "x")))
    await still_well(node)


VERBS = {"write": "POST", "patch": "PATCH", "delete": "DELETE"}
SPARED = frozenset({"token.revoke-self"})
"""Beside what seals: nothing could be asked after it."""
ODD: list[Any] = [
    [],
    {},
    -1,
    True,
    "\x00",
    {"a": [None]},
    "a" * 100_000,
    {"a" * 100_000: "b"},
]
"""What a field may be given, whatever it is meant for."""


async def changing(node: Node) -> list[tuple[str, str, list[str]]]:
    """Return every operation with a body: its method, its path, and the fields that it takes."""
    table = node.process.core.mounts
    return [
        (VERBS[one.method], mount.path + re.sub(r"\{\w+[*?]?\}", "fuzz", one.pattern), fields_of(one))
        for mount in await table.load()
        for one in table.operations(mount)
        if one.method in VERBS and one.request is not None and not one.sealing and one.name not in SPARED
    ]


def fields_of(one: Operation) -> list[str]:
    """Return the names of the fields of an operation's body."""
    assert one.request is not None
    return [field.encode_name for field in msgspec.structs.fields(one.request)]


async def test_bodies_of_every_operation(node: Node) -> None:
    """Whatever stands in the fields that an operation knows, it is carried out or refused."""
    await ok(node, "POST", "sys/mounts/plain", {"type": "kv-v1"})
    operations = await changing(node)
    assert len(operations) > 100

    # Each waits for those before it, and the client has its patience.
    places = asyncio.Semaphore(8)

    async def one(method: str, path: str, field: str, values: list[Any]) -> None:
        for value in values:
            async with places:
                answer = await node.call(method, path, json={field: value})
            check(answer.status_code, answer.content)

    # Each field is given every other one; which, chance decides.
    await asyncio.gather(
        *(
            one(method, path, field, ODD[random.randrange(2) :: 2])
            for method, path, fields in operations
            for field in fields
        )
    )
    await still_well(node)
