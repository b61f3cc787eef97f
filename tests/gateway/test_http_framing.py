"""Where a request begins and ends: ambiguity, pipelines, limits and slowness on the direct listeners."""

from __future__ import annotations

import asyncio

import pytest

from serve.timing import Timing
from tests.gateway.conftest import SHARING, Node
from tests.gateway.raw_http import ask, request, wire

CHUNKED = "Transfer-Encoding: chunked"
POST = "POST /v1/sys/unseal HTTP/1.1\r\nHost: localhost\r\n"


AMBIGUOUS = [
    POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    POST + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    POST + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    POST + "Content-Length: 2, 2\r\n\r\n{}",
    POST + "Content-Length: +2\r\n\r\n{}",
    POST + "Content-Length: -2\r\n\r\n{}",
    POST + "Content-Length: 0x2\r\n\r\n{}",
    POST + "Content-Length: 99999999999999999999999\r\n\r\n{}",
    POST + "Content-Length : 2\r\n\r\n{}",
    POST + "Content-Length:\r\n 2\r\n\r\n{}",
    POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: identity\r\n\r\n{}",
    POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\n\r\n2;\n{}\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}GET /v1/x HTTP/1.1\r\n\r\n",
    POST + "X-A: 1\r\n folded\r\n\r\n",
    POST + "X-A: 1\nX-B: 2\r\n\r\n",
    POST + "X-A: 1\rX-B: 2\r\n\r\n",
    POST + "X-A: \x00\r\n\r\n",
    POST + "X-A: \x0b\r\n\r\n",
    POST + "no colon\r\n\r\n",
    POST + ": no name\r\n\r\n",
    " " + POST + "\r\n",
    "GET /v1/sys/health HTTP/1.1\nHost: localhost\n\n",
    "GET /v1/sys/health HTTP/3.7\r\nHost: localhost\r\n\r\n",
    "GET v1/sys/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/sys/health#part HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/sys/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "list /v1/sys/policy HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
]


async def test_ambiguous_request_is_refused_and_ends_the_connection(sealed_node: Node) -> None:
    """What two servers could read differently gets one plain answer, then nothing more is read."""
    for data in AMBIGUOUS:
        async with wire(sealed_node) as connection:
            await connection.send(data.encode("latin-1"))
            reply = await connection.reply()
            assert reply.status == 400, data
            assert reply.header("content-type") == "application/json"
            assert reply.header("cache-control") == "no-store"
            assert reply.json()["code"] == "invalid_request"
            await connection.send(request())
            assert await connection.rest() == b"", data


async def test_other_versions_get_nothing(sealed_node: Node) -> None:
    """A request line without a version, or with that of HTTP/2, is not carried out."""
    for line in (b"GET /v1/sys/health\r\n\r\n", b"GET /v1/sys/health HTTP/2.0\r\nHost: localhost\r\n\r\n"):
        assert (await ask(sealed_node, line)).status == 400


async def test_http_1_0_is_answered_and_closed(sealed_node: Node) -> None:
    """A client of HTTP/1.0 gets its answer, and the connection ends."""
    async with wire(sealed_node) as connection:
        await connection.send(b"GET /v1/sys/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert (await connection.reply()).status == 501
        assert await connection.rest() == b""


@SHARING
async def test_pipelined_requests_are_answered_in_order(shared_node: Node) -> None:
    """Requests that come in one packet, LIST among them, are each answered, in their order."""
    token = f"X-Vault-Token: {shared_node.root}"
    async with wire(shared_node) as connection:
        await connection.send(
            request("/v1/auth/token/lookup-self", token)
            + request("/v1/sys/policies/acl", token, method="LIST")
            + request("/v1/secrets/pipelined/a", token, method="POST", body=b'{"data": {"k": "LIST /v1/"}}')
            + request("/v1/secrets/pipelined/a", token)
            + b"\r\n"
            + request("/v1/secrets/pipelined", token, method="LIST")
        )
        answers = [(await connection.reply()).json()["data"] for _ in range(5)]
    assert answers[0]["id"] == shared_node.root
    assert answers[1]["keys"] == ["default", "root"]
    assert answers[2]["version"] == 1
    assert answers[3]["data"] == {"k": "LIST /v1/"}
    assert answers[4]["keys"] == ["a"]


@SHARING
async def test_list_split_across_packets(shared_node: Node) -> None:
    """LIST works wherever TCP cuts it, as the first request and after others."""
    asked = request("/v1/sys/policies/acl", f"X-Vault-Token: {shared_node.root}", method="LIST")
    for cut in range(1, 8):
        async with wire(shared_node) as connection:
            for _ in range(2):
                await connection.send(asked[:cut], asked[cut:])
                assert (await connection.reply()).json()["data"]["keys"] == ["default", "root"]
            await connection.send(request() + asked[:cut], asked[cut:])
            assert (await connection.reply()).status == 200
            assert (await connection.reply()).json()["data"]["keys"] == ["default", "root"]


@SHARING
async def test_list_behind_a_body(shared_node: Node) -> None:
    """LIST directly behind a body is one, whatever bounds the body and wherever TCP cuts the bytes."""
    token = f"X-Vault-Token: {shared_node.root}"
    body = b'{"data": {"k": "LIST /v1/"}}'
    sized = request("/v1/secrets/behind/a", token, method="POST", body=body)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    chunked = request("/v1/secrets/behind/a", token, CHUNKED, method="POST") + chunks
    listed = request("/v1/secrets/behind", token, method="LIST")
    async with wire(shared_node) as connection:
        for first in (sized, chunked):
            head = first.index(b"\r\n\r\n")
            for cut in (0, *range(head, head + 6), *range(len(first) - 5, len(first) + 6)):
                data = first + listed + listed
                await connection.send(data[:cut], data[cut:])
                assert (await connection.reply()).status == 200, cut
                for _ in range(2):
                    assert (await connection.reply()).json()["data"]["keys"] == ["a"], cut


@SHARING
async def test_a_request_in_a_body_is_none(shared_node: Node) -> None:
    """A body that is a whole LIST request by its bytes is a body: it is answered once, as what it is."""
    inner = request("/v1/sys/policies/acl", f"X-Vault-Token: {shared_node.root}", method="LIST")
    for body in (inner, b"\r\n\r\n" + inner, b"\r\n" + inner + inner):
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for sent in (
            request("/v1/secrets/inner", method="POST", body=body),
            request("/v1/secrets/inner", CHUNKED, method="POST") + chunks,
        ):
            async with wire(shared_node) as connection:
                await connection.send(sent + inner)
                assert (await connection.reply()).status in {400, 403}
                assert (await connection.reply()).json()["data"]["keys"] == ["default", "root"]
                await connection.send(request("/v1/sys/health", "Connection: close"))
                assert (await connection.reply()).status == 200
                assert await connection.rest() == b""


@SHARING
async def test_bytes_one_by_one(shared_node: Node) -> None:
    """A request that arrives byte by byte is a request."""
    asked = request("/v1/sys/policies/acl", f"X-Vault-Token: {shared_node.root}", method="LIST")
    async with wire(shared_node) as connection:
        for byte in asked:
            await connection.send(bytes([byte]))
        assert (await connection.reply()).json()["data"]["keys"] == ["default", "root"]


@SHARING
async def test_the_stand_in_for_list_is_no_list(shared_node: Node) -> None:
    """The verb that the parser sees for LIST means nothing when a client sends it."""
    path, token = "/v1/sys/policies/acl", f"X-Vault-Token: {shared_node.root}"
    asked, listed = request(path, token, method="LINK"), request(path, token, method="LIST")
    for before in (b"", b"\r\n", b"\r\n\r\n"):
        assert (await ask(shared_node, before + asked)).status == 405
    async with wire(shared_node) as connection:
        await connection.send(listed + asked + request(path, token) + listed)
        assert [(await connection.reply()).status for _ in range(4)] == [200, 405, 405, 200]


@SHARING
async def test_a_body_that_looks_like_list_stays_as_it_is(shared_node: Node) -> None:
    """Only the verb of a request is replaced, never bytes of a body."""
    body = b'{"data":\r\n\r\n{"k": "a\\r\\n\\r\\nLIST b"}}\r\n\r\n'
    token = f"X-Vault-Token: {shared_node.root}"
    for parts in ((body,), (body[:10], body[10:]), tuple(bytes([byte]) for byte in body)):
        async with wire(shared_node) as connection:
            head = request("/v1/secrets/looks", token, f"Content-Length: {len(body)}", method="POST")
            await connection.send(head, *parts)
            assert (await connection.reply()).status == 200
            await connection.send(request("/v1/secrets/looks", token))
            kept = (await connection.reply()).json()["data"]["data"]
    assert kept == {"k": "a\r\n\r\nLIST b"}


@SHARING
async def test_answers_that_are_owed_come_before_the_end(shared_node: Node) -> None:
    """Rubbish after good requests takes nothing from their answers, and is not answered itself."""
    token = f"X-Vault-Token: {shared_node.root}"
    async with wire(shared_node) as connection:
        await connection.send(
            request("/v1/secrets/owed", token, method="POST", body=b'{"data": {"n": 1}}')
            + request("/v1/secrets/owed", token)
            + b"rubbish\r\n\r\n"
            + request("/v1/secrets/owed", token, method="DELETE")
        )
        assert (await connection.reply()).json()["data"]["version"] == 1
        last = await connection.reply()
        assert last.json()["data"]["data"] == {"n": 1}
        assert await connection.rest() == b""
    assert (await shared_node.call("GET", "secrets/owed")).status_code == 200


@SHARING
async def test_a_change_with_a_broken_body_is_not_carried_out(shared_node: Node) -> None:
    """A request whose chunks break off in rubbish changes nothing, and the one before it is answered."""
    token = f"X-Vault-Token: {shared_node.root}"
    async with wire(shared_node) as connection:
        await connection.send(
            request()
            + request("/v1/secrets/broken", token, CHUNKED, method="POST")
            + b'12\r\n{"data": {"n": 1}}\r\nrubbish\r\n'
        )
        assert (await connection.reply()).status == 200
        assert await connection.rest() == b""
    assert (await shared_node.call("GET", "secrets/broken")).status_code == 404


@SHARING
async def test_a_change_whose_client_goes_away_is_not_carried_out(shared_node: Node) -> None:
    """Half a body is no body."""
    async with wire(shared_node) as connection:
        head = request(
            "/v1/secrets/half", f"X-Vault-Token: {shared_node.root}", "Content-Length: 500", method="POST"
        )
        await connection.send(head + b'{"data": {"n": 1}}')
    assert (await shared_node.call("GET", "secrets/half")).status_code == 404


@SHARING
async def test_trailers_are_no_headers(shared_node: Node) -> None:
    """Fields after the body bring neither a token nor a Host that the head did not have."""
    body = "2\r\n{}\r\n0\r\n"
    token = f"X-Vault-Token: {shared_node.root}"
    late_token = request("/v1/auth/token/create", CHUNKED, method="POST") + f"{body}{token}\r\n\r\n".encode()
    assert (await ask(shared_node, late_token)).status == 403
    late_host = (
        request("/v1/auth/token/create", token, CHUNKED, method="POST", host="evil.example")
        + f"{body}Host: localhost\r\n\r\n".encode()
    )
    assert (await ask(shared_node, late_host)).status == 400


@SHARING
async def test_an_upgrade_is_not_taken_and_hides_no_body(shared_node: Node) -> None:
    """A client that offers HTTP/2 is answered in HTTP/1.1, body and following requests included."""
    offer = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    )
    token = f"X-Vault-Token: {shared_node.root}"
    asked = request("/v1/secrets/h2c", token, *offer, method="POST", body=b'{"data": {"n": 1}}')
    async with wire(shared_node) as connection:
        await connection.send(asked)
        assert (await connection.reply()).json()["data"]["version"] == 1
        await connection.send(request("/v1/secrets/h2c", token, *offer))
        assert (await connection.reply()).json()["data"]["data"] == {"n": 1}
        cut = asked.index(b"grade: h2c")
        await connection.send(asked[:cut], asked[cut:])
        assert (await connection.reply()).status == 400
        assert await connection.rest() == b""
    assert (await shared_node.call("GET", "secrets/h2c")).json()["data"]["metadata"]["version"] == 1


@SHARING
async def test_chosen_status_leaves_nothing_on_the_connection(shared_node: Node) -> None:
    """Whatever status a health check chooses, the next answer begins where this one ends."""
    for status in (200, 204, 205, 304, 599):
        async with wire(shared_node) as connection:
            health = request(f"/v1/sys/health?activecode={status}")
            await connection.send(health + request("/v1/sys/seal-status"))
            first = await connection.reply()
            assert first.status == status
            assert bool(first.body) == (status in {200, 599})
            assert (first.header("content-length") is None) == (status in {204, 304})
            assert (await connection.reply()).json()["type"] == "shamir"


async def test_a_head_has_a_limit(sealed_node: Node) -> None:
    """A head beyond the limit is refused while it arrives, and the client learns why."""
    for data in (
        b"GET /v1/" + b"a" * 300_000,
        request().replace(b"\r\n\r\n", b"\r\nX-Unfinished: " + b"a" * 300_000),
        request("/v1/sys/health", *(f"X-{number}: a" for number in range(20_000))),
        request("/v1/sys/health", "X-Long: " + "a" * 100_000),
    ):
        async with wire(sealed_node) as connection:
            await connection.send(data)
            assert (await connection.reply()).status == 431, data[:200]
            assert await connection.rest() == b""


async def test_a_head_below_the_limit_is_read(sealed_node: Node) -> None:
    """Forty thousand bytes of headers are no reason to refuse."""
    assert (await ask(sealed_node, request("/v1/sys/health", "X-Long: " + "a" * 40_000))).status == 501


@SHARING
async def test_declared_body_above_the_limit(shared_node: Node) -> None:
    """A body that says it is too large is refused before it is read; the connection goes on."""
    body = b"x" * (shared_node.settings.max_body + 1)
    token = f"X-Vault-Token: {shared_node.root}"
    async with wire(shared_node) as connection:
        await connection.send(request("/v1/secrets/a", token, method="POST", body=body)[:500])
        reply = await connection.reply()
        assert reply.status == 413
        assert reply.json()["code"] == "too_large"
        await connection.send(request("/v1/secrets/a", token, method="POST", body=body)[500:])
        await connection.send(request())
        assert (await connection.reply()).status == 200


@SHARING
async def test_chunked_body_above_the_limit(shared_node: Node) -> None:
    """A chunked body is refused where it passes the limit."""
    token = f"X-Vault-Token: {shared_node.root}"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    async with wire(shared_node) as connection:
        await connection.send(request("/v1/secrets/a", token, CHUNKED, method="POST"))
        await connection.send(*[chunk] * (shared_node.settings.max_body // 0x8000 + 1))
        assert (await connection.reply()).status == 413
        await connection.send(b"0\r\n\r\n" + request())
        assert (await connection.reply()).status == 200


@SHARING
async def test_a_body_without_end_ends_the_connection(shared_node: Node) -> None:
    """After a refusal nobody goes on sending for ever."""
    head = request("/v1/secrets/a", f"Content-Length: {1 << 40}", method="POST")
    async with wire(shared_node) as connection:
        await connection.send(head)
        assert (await connection.reply()).status == 413
        with pytest.raises(ConnectionError):
            await connection.send(*[bytes(1 << 20)] * 200)


@SHARING
async def test_trailers_and_extensions_have_a_limit(shared_node: Node) -> None:
    """What comes with chunks beside the body is bounded too."""
    for filler in (b"2;x=" + b"a" * 3_000_000, b"0\r\nX-Trailer: " + b"a" * 3_000_000):
        async with wire(shared_node) as connection:
            await connection.send(request("/v1/secrets/a", CHUNKED, method="POST"), filler)
            assert (await connection.reply()).status == 431


@SHARING
async def test_ends_that_are_none_have_a_limit(shared_node: Node) -> None:
    """Each place in a body where it might end costs work: a few are none of our business, very many are."""
    for count, status in ((1_000, 403), (100_000, 431)):
        body = b"\r\n" * count
        async with wire(shared_node) as connection:
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            await connection.send(request("/v1/secrets/a", CHUNKED, method="POST"), chunk)
            assert (await connection.reply()).status == status


@pytest.mark.parametrize("timing", [Timing(head=0.3)])
async def test_a_slow_head_is_not_waited_for(sealed_node: Node) -> None:
    """Silence and half a head each end the connection; the latter is told so."""
    for data in (b"", b"\r\n", b"LI"):
        async with wire(sealed_node) as connection:
            await connection.send(data)
            assert await connection.rest() == b""
    async with wire(sealed_node) as connection:
        await connection.send(b"GET /v1/sys/health HTTP/1.1\r\nHost: ")
        assert (await connection.reply()).status == 408
        assert await connection.rest() == b""
    async with wire(sealed_node) as connection:
        await connection.send(request())
        assert (await connection.reply()).status == 501
        await connection.send(b"\r\n")
        assert await connection.rest() == b""


@pytest.mark.parametrize("timing", [Timing(head=0.3)])
async def test_a_head_that_drips_is_not_waited_for(sealed_node: Node) -> None:
    """A byte now and then does not keep a connection open."""
    async with wire(sealed_node) as connection:
        ended = asyncio.create_task(connection.rest())
        await connection.send(b"GET /v1/sys/health HTTP/1.1\r\nX-Slow: ")
        while not ended.done():
            connection.writer.write(b"a")
            await asyncio.wait({ended}, timeout=0.05)
        assert b" 408 " in ended.result()


@pytest.mark.parametrize("timing", [Timing(head=0.3, body=0.2)])
async def test_a_slow_body_is_not_waited_for(node: Node) -> None:
    """A body that does not come is refused, nothing is changed, and the connection ends."""
    async with wire(node) as connection:
        token = f"X-Vault-Token: {node.root}"
        await connection.send(request("/v1/secrets/slow", token, "Content-Length: 18", method="POST") + b"{")
        reply = await connection.reply()
        assert reply.status == 400
        assert reply.json()["errors"] == ["the request body did not arrive in time"]
        assert await connection.rest() == b""
    assert (await node.call("GET", "secrets/slow")).status_code == 404


@SHARING
async def test_continue_is_said_when_the_body_is_wanted(shared_node: Node) -> None:
    """A client that waits for 100 gets it, unless the answer is no already."""
    token = f"X-Vault-Token: {shared_node.root}"
    body = b'{"data": {"n": 1}}'
    async with wire(shared_node) as connection:
        head = request(
            "/v1/secrets/c", token, "Expect: 100-continue", f"Content-Length: {len(body)}", method="POST"
        )
        await connection.send(head)
        assert (await connection.reply()).status == 100
        await connection.send(body)
        assert (await connection.reply()).status == 200
        large = f"Content-Length: {shared_node.settings.max_body + 1}"
        await connection.send(request("/v1/secrets/c", token, "Expect: 100-continue", large, method="POST"))
        assert (await connection.reply()).status == 413


async def test_an_absolute_target_names_the_host(sealed_node: Node) -> None:
    """With an absolute target the Host header says nothing, as RFC 9112 has it."""
    assert (
        await ask(sealed_node, request("http://localhost:1/v1/sys/health", host="evil.example"))
    ).status == 501
    assert (await ask(sealed_node, request("http://evil.example/v1/sys/health"))).status == 400
    assert (await ask(sealed_node, request("http://localhost@evil.example/v1/sys/health"))).status == 400
