"""Reads whose answer is at hand: the same as on the whole way, and nothing leaves before its entry."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from secrethub.node import Listener
from secrethub.storage.freshness import LOCK
from serve.again import Again
from serve.cycle import Cycle
from serve.listeners import HttpListener
from serve.protocol import Protocol
from tests.gateway.behind import refusing, sql
from tests.gateway.conftest import SHARING, Node, free_port, native
from tests.gateway.raw_http import GUARD, Reply, Wire, ask, request, wire

_READ = "/v1/secrets/at-hand"
_DONE = "SELECT count(*) AS n FROM audit_entries WHERE operation = 'kv.read' AND outcome = 'done'"


async def _reader(node: Node, **options: str) -> str:
    """Write a secret; return the header of a token that has read it: the answer is at hand from now on."""
    assert (await node.call("DELETE", "secret/metadata/at-hand")).status_code == 204
    assert (await node.call("POST", "secrets/at-hand", json={"data": {"k": "first"}})).status_code == 200
    token = await node.token("reader", native("secrets/**"), **options)
    assert (await node.call("GET", "secrets/at-hand", token=token)).status_code == 200
    return f"X-Vault-Token: {token}"


@asynccontextmanager
async def _stalled(node: Node) -> AsyncIterator[None]:
    """Let no group of entries be committed until the end."""
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        yield
    finally:
        await connection.close()


async def _waiting(node: Node, requests: int = 1) -> None:
    """Return when so many requests wait for their entries."""
    async with asyncio.timeout(GUARD):
        while node.process.core.ledger.open < requests:  # noqa: ASYNC110 - a number, which nobody announces
            await asyncio.sleep(0.005)


def _tasks() -> int:
    return sum("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())


def _comparable(reply: Reply) -> tuple[object, ...]:
    fixed = [pair for pair in reply.headers if pair[0] not in {"date", "x-request-id"}]
    return reply.status, fixed, reply.json() | {"request_id": ""}


async def _both(node: Node, header: str, path: str = _READ) -> tuple[Reply, Reply]:
    """Read at hand, and on the whole way; a query makes the difference, which says nothing."""
    async with wire(node) as connection:
        await connection.send(request(path, header))
        at_hand = await connection.reply()
        await connection.send(request(f"{path}?version=0", header))
        return at_hand, await connection.reply()


@SHARING
async def test_it_takes_no_task_and_waits_for_its_entry(shared_node: Node) -> None:
    """While the entry cannot be committed no byte of the answer leaves; then all of it does."""
    node = shared_node
    header = await _reader(node)
    async with wire(node) as connection:
        async with _stalled(node):
            await connection.send(request(_READ, header))
            await _waiting(node)
            assert _tasks() == 0
            reading = asyncio.create_task(connection.reply())
            await asyncio.wait([reading], timeout=0.3)
            assert not reading.done()
        reply = await reading
    assert reply.json()["data"]["data"] == {"k": "first"}
    found = await sql(
        node.settings.database_url,
        "SELECT outcome, path, client, door FROM audit_entries WHERE request_id = $1",
        reply.header("x-request-id"),
    )
    assert [tuple(row) for row in found] == [("done", "secret/data/at-hand", "127.0.0.1", "http")]


@SHARING
async def test_the_answer_is_that_of_the_whole_way(shared_node: Node) -> None:
    """Status, headers and body are the same, of a version that is there and of one that was deleted."""
    node = shared_node
    header = await _reader(node)
    at_hand, whole = await _both(node, header)
    assert at_hand.status == 200
    assert _comparable(at_hand) == _comparable(whole)
    assert at_hand.header("x-request-id") == at_hand.json()["request_id"]
    assert (await node.call("DELETE", "secrets/at-hand")).status_code == 204
    for _ in range(2):
        at_hand, whole = await _both(node, header)
        assert at_hand.status == 404
        assert at_hand.json()["data"]["metadata"]["deletion_time"]
        assert _comparable(at_hand) == _comparable(whole)


@SHARING
async def test_each_request_of_a_connection_is_for_itself(shared_node: Node) -> None:
    """Whatever was said before on a connection, token, wrapping and path are those of the request."""
    node = shared_node
    header = await _reader(node)
    other = f"X-Vault-Token: {await node.token('other', native('secrets/elsewhere/**'))}"
    assert (await node.call("POST", "secrets/second", json={"data": {"k": "second"}})).status_code == 200
    steps: list[tuple[int, str | None, str, tuple[str, ...]]] = [
        (200, "first", _READ, (header,)),
        (200, "second", "/v1/secrets/second", (header,)),
        (403, None, _READ, (other,)),
        (403, None, _READ, ()),
        (200, None, _READ, (header, "X-Vault-Wrap-TTL: 60")),
        (400, None, _READ, (header, header)),
        (400, None, _READ, (header, "X-Vault-Namespace: team")),
        (200, "first", _READ, (header,)),
        (404, None, "/v2/secrets/at-hand", (header,)),
        (200, "second", "/v1/secrets/second", (header,)),
    ]
    async with wire(node) as connection:
        for _ in range(3):
            for status, value, path, headers in steps:
                await connection.send(request(path, *headers))
                reply = await connection.reply()
                assert reply.status == status
                data = reply.json().get("data")
                assert (data["data"]["k"] if data else None) == value


@SHARING
async def test_a_token_that_was_revoked_ends_on_its_connection(shared_node: Node) -> None:
    """A connection on which a token was understood forgets nothing that happens to the token."""
    node = shared_node
    header = await _reader(node)
    async with wire(node) as connection:
        for status in (200, 200, 403, 403):
            if status == 403:
                token = header.partition(": ")[2]
                await node.call("POST", "auth/token/revoke", json={"token": token})
            await connection.send(request(_READ, header))
            assert (await connection.reply()).status == status


@SHARING
async def test_what_is_pipelined_stays_in_order(shared_node: Node) -> None:
    """Answers at hand and others come in the order of their requests."""
    node = shared_node
    header = await _reader(node)
    asked = [request(_READ, header), request("/v1/auth/token/lookup-self", header)] * 3
    async with wire(node) as connection:
        await connection.send(b"".join(asked))
        replies = [await connection.reply() for _ in asked]
    assert ["policies" in reply.json()["data"] for reply in replies] == [False, True] * 3


@SHARING
async def test_connections_end_where_the_client_wants_it(shared_node: Node) -> None:
    """HTTP/1.0 and ``Connection: close`` get their answer, and the connection ends."""
    node = shared_node
    header = await _reader(node)
    old = request(_READ, header).replace(b"HTTP/1.1", b"HTTP/1.0")
    for asked in (old, request(_READ, header, "Connection: close")):
        async with wire(node) as connection:
            await connection.send(asked)
            reply = await connection.reply()
            assert (reply.status, reply.header("connection")) == (200, "close")
            assert await connection.rest() == b""


@SHARING
async def test_a_client_that_goes_away_is_written_down(shared_node: Node) -> None:
    """What was read has its entry although nobody got it, and others go on."""
    node = shared_node
    header = await _reader(node)
    before = (await sql(node.settings.database_url, _DONE))[0]["n"]
    async with _stalled(node):
        async with wire(node) as connection:
            await connection.send(request(_READ, header))
            await _waiting(node)
        await asyncio.sleep(0.05)
    async with wire(node) as connection:
        await connection.send(request(_READ, header))
        assert (await connection.reply()).status == 200
    assert (await sql(node.settings.database_url, _DONE))[0]["n"] == before + 2
    assert node.process.core.ledger.open == 0


async def test_keys_that_go_away_meanwhile(node: Node) -> None:
    """A process that was sealed while the entry was written answers nothing of it."""
    header = await _reader(node)
    async with wire(node) as connection:
        async with _stalled(node):
            await connection.send(request(_READ, header))
            await _waiting(node)
            node.process.core.lock()
        reply = await connection.reply()
    assert (reply.status, reply.json()["code"]) == (503, "sealed")


async def test_a_token_that_ends_meanwhile(node: Node) -> None:
    """Whose token ended while the entry was written is decided anew, and refused."""
    header = await _reader(node, ttl="1h")
    async with wire(node) as connection:
        async with _stalled(node):
            await connection.send(request(_READ, header))
            await _waiting(node)
            node.clock.move(3700)
        reply = await connection.reply()
    assert (reply.status, reply.json()["code"]) == (403, "permission_denied")


@SHARING
async def test_what_may_have_changed_meanwhile(shared_node: Node) -> None:
    """An answer that may have been overtaken while its entry was written does not leave: it is read anew."""
    node = shared_node
    before = (await sql(node.settings.database_url, _DONE))[0]["n"]
    header = await _reader(node)
    async with wire(node) as connection:
        async with _stalled(node):
            await connection.send(request(_READ, header))
            await _waiting(node)
            node.process.core.caches.flush()
        reply = await connection.reply()
    assert reply.json()["data"]["data"] == {"k": "first"}
    # The read before, the one that was overtaken, and the one that was answered.
    assert (await sql(node.settings.database_url, _DONE))[0]["n"] == before + 3


async def test_an_entry_that_cannot_be_written(node: Node) -> None:
    """Nothing is answered without it, the failure is counted, and reads work again afterwards."""
    header = await _reader(node)
    async with wire(node) as connection:
        async with refusing(node.settings.database_url, "INSERT ON audit_entries"):
            await connection.send(request(_READ, header))
            reply = await connection.reply()
            assert (reply.status, reply.json()["code"]) == (503, "unavailable")
            assert reply.header("cache-control") == "no-store"
            assert b"first" not in reply.body
        await connection.send(request(_READ, header))
        assert (await connection.reply()).status == 200
    metrics = (await node.call("GET", "sys/metrics")).text
    assert 'secrethub_requests_total{operation="kv.read",outcome="unavailable"' in metrics


@pytest.mark.parametrize("apart", [False, True])
async def test_one_that_does_not_read_its_answers(node: Node, apart: bool) -> None:
    """Whoever asks without end and takes nothing is not answered for ever: nobody fills the memory."""
    header = await _reader(node)
    long = {"data": {"k": "x" * 1_000_000}}
    assert (await node.call("POST", "secrets/at-hand", json=long)).status_code == 200
    asked = 60
    async with wire(node) as connection:
        # All at once, or each as what was said before: the answers wait to be taken.
        again = request(_READ, header)
        for piece in [again] * asked if apart else [again * asked]:
            await connection.send(piece)
            await asyncio.sleep(0.02 * apart)
        answered, steady = -1, 0
        async with asyncio.timeout(GUARD):
            while steady < 10:
                now = node.process.core.ledger.entries
                steady = steady + 1 if now == answered else 0
                answered = now
                await asyncio.sleep(0.05)
        assert (await sql(node.settings.database_url, _DONE))[0]["n"] < asked


@SHARING
async def test_a_client_that_leaves_while_several_answers_are_owed_harms_nobody(
    shared_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """Who wrote an entry in the same group as a client that sent many requests and went away is answered."""
    node = shared_node
    header = await _reader(node)
    async with wire(node) as first, wire(node) as other:
        async with _stalled(node):
            await first.send(request(_READ, header))
            await _waiting(node)  # its entry is a group of its own: the next ones share one
            async with wire(node) as leaving:
                await leaving.send(request() + request(_READ, header) * 3)
                assert (await leaving.reply()).status == 200
                await _waiting(node, 2)
            for _ in range(3):  # by then the server has seen it go
                assert (await ask(node, request())).status == 200
            await other.send(request(_READ, header))
            await _waiting(node, 3)
        for connection in (first, other):
            assert (await connection.reply()).status == 200
    assert "closed" not in caplog.text


async def test_of_those_that_arrive_together_each_gets_its_own(node: Node) -> None:
    """Reads that are carried out together are answered each for itself, and are each in the ledger.

    Among them are some that have to go the whole way, and one whose token ends meanwhile.
    """
    names = [f"at-hand/{number}" for number in range(6)]
    for name in names:
        assert (await node.call("POST", f"secrets/{name}", json={"data": {"is": name}})).status_code == 200
    lasting = await node.token("reader", native("secrets/at-hand/*"))
    ending = await node.token("brief", native("secrets/at-hand/*"), ttl="1h")
    for token in (lasting, ending):
        for name in names:
            assert (await node.call("GET", f"secrets/{name}", token=token)).status_code == 200
    kept = [(name, lasting, 200) for name in names]
    others = [
        (names[0], "hvs.unknown", 403),
        ("elsewhere", lasting, 403),
        (f"{names[1]}?version=1", lasting, 200),
    ]
    asked = [*kept, (names[2], ending, 403), *others, *kept]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(wire(node)) for _ in asked]
        async with _stalled(node):
            # Nothing else runs before all of them have been sent.
            for connection, (name, token, _) in zip(connections, asked, strict=True):
                connection.writer.write(request(f"/v1/secrets/{name}", f"X-Vault-Token: {token}"))
            await _waiting(node, 2 * len(kept) + 1)
            node.clock.move(3700)
        replies = [await connection.reply() for connection in connections]
    assert [reply.status for reply in replies] == [status for _, _, status in asked]
    for reply, (name, _, status) in zip(replies, asked, strict=True):
        if status == 200:
            assert reply.json()["data"]["data"] == {"is": name.partition("?")[0]}
    found = await sql(
        node.settings.database_url,
        "SELECT request_id, path, outcome FROM audit_entries WHERE kind = 'request' AND outcome = 'done'",
    )
    entries = {row["request_id"]: row["path"] for row in found}
    for reply, (name, _, status) in zip(replies, asked, strict=True):
        if status == 200:
            assert entries[reply.json()["request_id"]] == f"secret/data/{name.partition('?')[0]}"
    assert node.process.core.ledger.open == 0


def _parsed(node: Node) -> object:
    """Return what is another one when the only connection's newest request was parsed."""
    (connection,) = node.process._listeners[0]._server.server_state.connections
    assert isinstance(connection, Protocol)
    return connection.cycle


async def test_what_is_said_again_is_not_parsed(node: Node) -> None:
    """Of a connection's reads only the path is looked at, for as long as the headers stay the same."""
    header = await _reader(node)
    assert (await node.call("POST", "secrets/second", json={"data": {"k": "second"}})).status_code == 200
    await node.client.aclose()
    before = None
    async with wire(node) as connection:
        for path, headers, seen in (
            (_READ, (header,), True),
            (_READ, (header,), False),
            ("/v1/secrets/%61t-hand", (header,), False),
            ("/v1/secrets/second", (header,), True),  # understood, but not at hand: the whole way
            ("/v1/secrets/second", (header,), False),
            (_READ, (header, "Accept: */*"), True),
            (_READ, (header,), True),
            (_READ, (header,), False),
        ):
            await connection.send(request(path, *headers))
            reply = await connection.reply()
            assert reply.json()["data"]["data"] == {"k": "second" if "second" in path else "first"}
            now = _parsed(node)
            assert (now is not before) is seen
            before = now


@SHARING
async def test_what_is_not_at_hand_is_looked_for_once(shared_node: Node) -> None:
    """A read that is said again and has to go the whole way goes it at once."""
    node = shared_node
    header = await _reader(node)
    application, taken = node.process.application("http"), []

    def take(cycle: Cycle | Again, whole_way: Callable[[], None]) -> None:
        taken.append(type(cycle))
        application.at_once.take(cycle, whole_way)

    listener = HttpListener(application, Listener(host="127.0.0.1", port=free_port()), take=take)
    await listener.start()
    try:
        connection = Wire(*await asyncio.open_connection("127.0.0.1", listener.port))
        for _ in range(3):
            await connection.send(request("/v1/auth/token/lookup-self", header))
            assert (await connection.reply()).status == 200
        connection.writer.close()
    finally:
        await listener.stop()
    assert taken == [Cycle, Again, Again]


@SHARING
@pytest.mark.parametrize("cut", [1, 20, 0])
async def test_what_follows_waits_for_what_is_said_again(shared_node: Node, cut: int) -> None:
    """Requests that come behind a read that was not parsed are answered after it, and are all answered."""
    node = shared_node
    header = await _reader(node)
    again, other = request(_READ, header), request("/v1/auth/token/lookup-self", header)
    async with wire(node) as connection:
        await connection.send(again)
        await connection.reply()
        async with _stalled(node):
            await connection.send(again)
            await _waiting(node)
            behind = other + again + again
            await connection.send(behind[:cut], behind[cut:])
        replies = [await connection.reply() for _ in range(4)]
        assert ["policies" in reply.json()["data"] for reply in replies] == [False, True, False, False]
        await connection.send(again)
        assert (await connection.reply()).status == 200


@SHARING
async def test_the_whole_way_with_more_behind(shared_node: Node) -> None:
    """What has to be parsed after all is answered first, and what came after it follows."""
    node = shared_node
    header = await _reader(node)
    again, other = request(_READ, header), request("/v1/auth/token/lookup-self", header)
    async with wire(node) as connection:
        await connection.send(again)
        await connection.reply()
        async with _stalled(node):
            await connection.send(again)
            await _waiting(node)
            await connection.send(other, again)
            node.process.core.caches.flush()
        replies = [await connection.reply() for _ in range(3)]
    assert ["policies" in reply.json()["data"] for reply in replies] == [False, True, False]


@SHARING
async def test_the_host_that_counts_is_the_one_that_was_checked(shared_node: Node) -> None:
    """A request whose target names another host is not what the one before it was (RFC 9112, 3.2.2)."""
    node = shared_node
    header = await _reader(node)
    again = request(_READ, header)
    elsewhere = again.replace(b"GET /", b"GET http://elsewhere.example/")
    async with wire(node) as connection:
        for asked, status in ((again, 200), (again, 200), (elsewhere, 400), (again, 200), (elsewhere, 400)):
            await connection.send(asked)
            assert (await connection.reply()).status == status
    async with wire(node) as connection:
        for asked in (elsewhere.replace(b"elsewhere.example", b"localhost"), elsewhere):
            await connection.send(asked)
            reply = await connection.reply()
        assert reply.status == 400


@SHARING
async def test_what_ends_connections_does_so_after_reads_that_are_said_again(shared_node: Node) -> None:
    """HTTP/1.0, or a header that says so, ends the connection however often the rest was said before."""
    node = shared_node
    header = await _reader(node)
    again = request(_READ, header)
    for last in (again.replace(b"HTTP/1.1", b"HTTP/1.0"), request(_READ, header, "Connection: close")):
        async with wire(node) as connection:
            for asked in (again, again, last):
                await connection.send(asked)
                reply = await connection.reply()
                assert reply.status == 200
            assert reply.header("connection") == "close"
            assert await connection.rest() == b""


@pytest.mark.parametrize("overtaken", [False, True])
async def test_a_server_that_stops_answers_what_is_said_again(
    node: Node,
    overtaken: bool,
) -> None:
    """A read under way has its answer, which says that the connection ends; so it does on the whole way."""
    header = await _reader(node)
    again = request(_READ, header)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(wire(node)) for _ in range(2)]
        for connection in connections:
            await connection.send(again)
            await connection.reply()
        async with _stalled(node):
            for connection in connections:
                await connection.send(again)
            await _waiting(node, 2)
            stopping = asyncio.create_task(node.process._listeners[0].stop())
            await asyncio.wait([stopping], timeout=0.3)
            assert not stopping.done()
            if overtaken:
                node.process.core.caches.flush()
        for connection in connections:
            reply = await connection.reply()
            assert (reply.status, reply.header("connection")) == (200, "close")
            assert await connection.rest() == b""
        await stopping


@SHARING
async def test_a_client_that_leaves_a_read_that_is_said_again(
    shared_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """It is written down, and nobody is harmed."""
    node = shared_node
    header = await _reader(node)
    again = request(_READ, header)
    before = (await sql(node.settings.database_url, _DONE))[0]["n"]
    async with wire(node) as other, wire(node) as leaving:
        for connection in (other, leaving):
            await connection.send(again)
            await connection.reply()
        async with _stalled(node):
            await other.send(again)
            await _waiting(node)
            await leaving.send(again)
            await _waiting(node, 2)
            leaving.writer.transport.abort()
            for _ in range(3):  # by then the server has seen it go
                assert (await ask(node, request())).status == 200
        assert (await other.reply()).status == 200
        await other.send(again)
        assert (await other.reply()).status == 200
    assert (await sql(node.settings.database_url, _DONE))[0]["n"] == before + 5
    assert node.process.core.ledger.open == 0
    assert "could not be answered" not in caplog.text
    assert "closed" not in caplog.text


@SHARING
async def test_no_part_of_another_request_is_one_that_is_said_again(shared_node: Node) -> None:
    """Bytes of a body, or of a header, that look like the request before them are not one."""
    node = shared_node
    before = (await sql(node.settings.database_url, _DONE))[0]["n"]
    header = await _reader(node)
    again = request(_READ, header)
    length = f"Content-Length: {node.settings.max_body + 1}"
    async with wire(node) as connection:
        await connection.send(again)
        await connection.reply()
        await connection.send(b"GET /v1/secrets/elsewhere HTTP/1.1\r\nA: ", again)
        assert (await connection.reply()).status == 404
        await connection.send(again)
        assert (await connection.reply()).status == 200
        # Refused for its length before its body is here, which is read all the same.
        await connection.send(request("/v1/secrets/at-hand", header, length, method="POST"))
        assert (await connection.reply()).status == 413
        await connection.send(again)
        await asyncio.sleep(0.1)
        assert (await ask(node, request())).status == 200
    assert (await sql(node.settings.database_url, _DONE))[0]["n"] == before + 3


@SHARING
@pytest.mark.parametrize("seed", range(8))
async def test_any_requests_in_any_pieces(shared_node: Node, seed: int) -> None:
    """However bytes arrive, each request has the answer that it has alone, and they are in order."""
    node = shared_node
    chance = random.Random(seed)
    header = await _reader(node)
    await node.token("reader", native("secrets/**", capabilities=("read", "list", "create", "update")))
    kinds = {
        request(_READ, header): "first",
        request(_READ, header, "Accept: */*"): "first",
        request(f"{_READ}?version=1", header): "first",
        request("/v1/auth/token/lookup-self", header): None,
        request("/v1/secrets/elsewhere", header): "none",
        request("/v1/secrets/at-hand", header, method="PATCH", body=b"[]"): "none",
        request("/v1/secrets", header, method="LIST"): None,
        request("/v1/secrets/other", header, method="POST", body=b'{"data": {"k": "LIST /"}}'): None,
    }
    weights = [6, 1, 1, 1, 1, 1, 2, 2]
    async with wire(node) as connection:
        for _ in range(12):
            asked = chance.choices(list(kinds), weights, k=chance.randint(1, 4))
            data = b"".join(asked)
            cuts = sorted(chance.sample(range(len(data) + 1), chance.choice([0, 0, 1, 3])))
            pieces = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
            await connection.send(*pieces)
            for one in asked:
                reply = await connection.reply()
                told = reply.json().get("data") or {}
                assert told.get("data", {"k": "none"} if not told else {"k": None})["k"] == kinds[one]
