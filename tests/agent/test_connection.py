"""The agent's connection to Core, over real mTLS."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from core_peer import Authorities, CorePeer, Secret, until

from agent.backoff import Backoff
from agent.cache import Cache
from agent.clocks import read_clocks
from agent.connection import Connection, IdentityRefused
from agent.identity import Identity, certified
from agent.reader import Reader
from agent.renewal import Renewal
from agent.settings import CacheSettings
from agent.state import open_state
from agent.watches import FILES
from secrethub.clock import SystemClock
from secrethub.errors import NotFound, PermissionDenied, Sealed, Unavailable
from secrethub.pki import keys
from secrethub.wire import messages as wire
from secrethub.wire.close_codes import CloseCode

PATH = "secrets/prod/db"


def watched(core: CorePeer, path: str) -> int:
    """Return how often a watch of ``path`` was asked for."""
    return sum(isinstance(message, wire.Watch) and path in message.paths for message in core.messages)


def identity_of(core: CorePeer, lifetime: timedelta | None = None) -> Identity:
    """Return an identity that Core has issued."""
    key = keys.generate("ecdsa-p256")
    certificate = core.authorities.agent(key.public_key(), core.agent_id, lifetime)
    chain_pem, root_sha256 = core.authorities.chain_pem, core.authorities.root_sha256
    return certified(key, certificate, chain_pem, root_sha256, datetime.now(UTC))


class Host:
    """The parts of an agent between the socket to Core and its users, wired as the service does."""

    def __init__(
        self, core: CorePeer, *urls: str, lifetime: timedelta | None = None, guesses: tuple[str, ...] = ()
    ) -> None:
        self.core = core
        self.endpoints: list[set[str]] = []
        self.opened_times = 0
        self.changes: list[str | None] = []
        self.due = asyncio.Event()
        self.connection = Connection(
            identity_of(core, lifetime),
            "web-1",
            urls or (core.agent_url,),
            SystemClock(),
            Backoff(),
            guesses,
        )
        self.reader = Reader(
            self.connection,
            Cache(max_entries=100, max_bytes=2**20),
            None,
            CacheSettings(),
            read_clocks,
            Backoff(),
        )
        self.holding: asyncio.Task[None] | None = None

    def opened(self) -> None:
        """A new conversation."""
        self.opened_times += 1
        self.reader.outdate_all()

    def changed(self, path: str) -> None:
        """A path changed."""
        self.changes.append(path)
        self.reader.outdate(path)

    def changed_all(self) -> None:
        """Rights changed."""
        self.changes.append(None)
        self.reader.outdate_all()

    def order_due(self) -> None:
        """There is a command to be run."""

    def certificate_due(self) -> None:
        """Core wants a renewal."""
        self.due.set()

    def moved(self, urls: Sequence[str]) -> None:
        """Core has other gateways."""
        self.endpoints.append(set(urls))

    async def value(self, path: str = PATH) -> tuple[object, str]:
        """Return a secret's field and where it came from."""
        served = await self.reader.read("app", path)
        return msgspec.json.decode(served.entry.data)["value"], served.source


@contextlib.asynccontextmanager
async def running(host: Host) -> AsyncIterator[Host]:
    """Hold the connection and refresh in the background for as long as the block lasts."""
    host.holding = asyncio.create_task(host.connection.run(host))
    refreshing = asyncio.create_task(host.reader.run_refresh())
    try:
        yield host
    finally:
        for task in (host.holding, refreshing):
            task.cancel()
        await asyncio.wait([host.holding, refreshing])


@pytest.fixture(autouse=True)
async def every_failure_is_taken() -> AsyncIterator[None]:
    """No task ends with an exception that nobody looks at: asyncio would report it at some later time."""
    lost: list[str] = []
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: lost.append(str(context)))
    yield
    gc.collect()
    assert lost == []


@pytest.fixture
async def host(core: CorePeer) -> AsyncIterator[Host]:
    """A connected host."""
    core.secrets[PATH] = Secret({"value": 1})
    async with running(Host(core)) as running_host:
        await until(lambda: running_host.opened_times == 1)
        yield running_host


# Whom the agent talks to


@pytest.mark.parametrize("impostor", ["nameless", "server"])
async def test_only_a_gateway_is_told_anything(authorities: Authorities, impostor: str) -> None:
    """A server without the gateway's URI, or below another authority, gets no message at all."""
    core = CorePeer(authorities=authorities)
    async with core.agents(getattr(authorities, impostor)()), running(Host(core)) as host:
        with pytest.raises(Unavailable):
            await host.reader.read("app", PATH)
        assert core.messages == []
        assert host.opened_times == 0


async def test_a_gateway_of_another_cluster_is_told_nothing(core: CorePeer) -> None:
    """Another cluster's gateway is a stranger, even with the same cluster id in its name."""
    stranger = CorePeer(authorities=Authorities(core.authorities.cluster))
    async with stranger.agents():
        host = Host(core, stranger.agent_url)
        async with running(host):
            with pytest.raises(Unavailable):
                await host.reader.read("app", PATH)
    assert stranger.messages == []


async def test_core_must_know_the_agent_by_its_own_name(core: CorePeer) -> None:
    """When the welcome names another agent the conversation is not used."""
    host = Host(core)
    core.agent_id = "00000000-0000-4000-8000-000000000000"
    async with running(host):
        with pytest.raises(Unavailable):
            await host.reader.read("app", PATH)


# Reading


async def test_a_secret_is_read_once_and_then_cached(host: Host) -> None:
    """The second read is answered here; the path is watched before it is read."""
    assert await host.value() == (1, "core")
    assert await host.value() == (1, "cache")
    assert host.core.reads(PATH) == 1
    kinds = [type(message) for message in host.core.messages]
    assert kinds.index(wire.Watch) < kinds.index(wire.Read)


async def test_many_readers_make_one_request(host: Host) -> None:
    """Everybody who wants the same at the same time shares one read; only one of them counts as reader."""
    served = await asyncio.gather(*(host.reader.read(f"app-{n % 3}", PATH) for n in range(50)))
    assert host.core.reads(PATH) == 1
    assert sorted(s.source for s in served).count("core") == 1
    assert await asyncio.gather(*(host.reader.read(f"app-{n}", PATH) for n in range(3)))
    assert host.core.reads(PATH) == 1


async def test_one_read_brings_every_holder_up_to_date(host: Host) -> None:
    """After a change the first who reads again reads for all applications that hold the secret."""
    await asyncio.gather(host.reader.read("a", PATH), host.reader.read("b", PATH))
    host.core.secrets[PATH] = Secret({"value": 2}, 2)
    host.reader._cache.changed(PATH)
    await host.reader.read("a", PATH)
    assert host.core.reads(PATH) == 2
    served = await host.reader.read("b", PATH)
    assert (served.source, served.entry.version) == ("cache", 2)


async def test_a_reader_that_goes_away_does_not_end_the_read(host: Host) -> None:
    """Cancelling one of two readers leaves the other its answer."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def on_read(_path: str) -> None:
        arrived.set()
        await release.wait()

    host.core.on_read = on_read
    first = asyncio.create_task(host.value())
    second = asyncio.create_task(host.value())
    await arrived.wait()
    first.cancel()
    release.set()
    assert (await second)[0] == 1


async def test_a_change_reaches_the_cache(host: Host) -> None:
    """After a push the new value is read without anybody asking."""
    await host.value()
    await host.core.write(PATH, value=2)
    await until(lambda: host.core.reads(PATH) == 2)
    await until(lambda: host.changes == [PATH])
    assert (await host.value())[0] == 2


async def test_a_change_during_a_read_is_not_missed(host: Host) -> None:
    """When the secret changes while it is read, the reader gets the new value and the cache keeps it."""
    core = host.core
    once = asyncio.Event()

    async def on_read(path: str) -> None:
        if not once.is_set():
            once.set()
            old = core.secrets[path]
            await core.write(path, value=2)
            await until(lambda: host.changes == [path])
            core.secrets[path] = old  # the answer that was under way
            asyncio.get_running_loop().call_soon(lambda: core.secrets.update({path: Secret({"value": 2}, 2)}))

    core.on_read = on_read
    assert (await host.value())[0] == 2
    assert (await host.value())[0] == 2


async def test_a_missing_secret_is_not_found(host: Host) -> None:
    """A path that holds nothing is an error of its own, and is forgotten if it was cached."""
    await host.value()
    del host.core.secrets[PATH]
    await host.core.announce(PATH, 0)
    await until(lambda: host.reader.cached == 0)
    with pytest.raises(NotFound):
        await host.value()


async def test_a_withdrawn_right_empties_the_cache(host: Host) -> None:
    """After a change of policy everything is asked again, and what is refused now is gone for good."""
    await host.value()
    host.core.refusals[PATH] = "permission_denied"
    await host.core.push(wire.PolicyChanged())
    await until(lambda: host.reader.cached == 0)
    with pytest.raises(PermissionDenied):
        await host.value()


@pytest.mark.parametrize(("code", "error"), [("sealed", Sealed), ("unavailable", Unavailable)])
async def test_what_passes_is_bridged(host: Host, code: str, error: type[Exception]) -> None:
    """While Core says that it cannot answer, what is cached serves; what is not is an error."""
    await host.value()
    host.core.refusals.update({PATH: code, "secrets/other": code})
    await host.core.announce(PATH, 1)
    await until(lambda: host.changes == [PATH])
    assert await host.value() == (1, "stale")
    with pytest.raises(error):
        await host.reader.read("app", "secrets/other")


async def test_another_applications_entry_does_not_bridge(host: Host) -> None:
    """An application that never read a secret gets nothing from the slice of another."""
    await host.value()
    host.core.refusals[PATH] = "unavailable"
    with pytest.raises(Unavailable):
        await host.reader.read("other", PATH)


async def test_an_old_version_is_read_by_number(host: Host) -> None:
    """A version is asked for and cached by its number, beside the newest."""
    served = await host.reader.read("app", PATH, 7)
    assert served.entry.version == 7
    assert (await host.reader.read("app", PATH, 7)).source == "cache"
    assert await host.value() == (1, "core")


# Watching


@pytest.mark.parametrize("code", ["sealed", "unavailable", "too_many_requests"])
async def test_a_watch_refused_in_passing_is_asked_for_again(host: Host, code: str) -> None:
    """What changed before the watch was granted at last is read again, and what changes later too."""
    core = host.core
    core.unwatched[PATH] = code
    assert await host.value() == (1, "core")
    await core.write(PATH, value=2)  # nobody is told
    del core.unwatched[PATH]
    await until(lambda: core.reads(PATH) == 2)
    assert (await host.value())[0] == 2
    await core.write(PATH, value=3)
    await until(lambda: core.reads(PATH) == 3)


async def test_a_refusal_that_lasts_is_not_asked_about_again(host: Host) -> None:
    """A path that may not be watched is left alone until rights change."""
    host.core.unwatched["secrets/other"] = "permission_denied"
    host.core.refusals["secrets/other"] = "permission_denied"
    for _ in range(3):
        with pytest.raises(PermissionDenied):
            await host.reader.read("app", "secrets/other")
    assert watched(host.core, "secrets/other") == 1
    host.core.unwatched.clear()
    host.core.refusals.clear()
    host.core.secrets["secrets/other"] = Secret({"value": 5})
    await host.core.push(wire.PolicyChanged())
    await until(lambda: None in host.changes)
    assert await host.value("secrets/other") == (5, "core")
    assert watched(host.core, "secrets/other") == 2


async def test_what_cannot_be_watched_answers_briefly(host: Host) -> None:
    """A value whose changes nobody would tell of is fresh for seconds, not for the cache's time."""
    host.core.unwatched["secrets/other"] = "too_many_requests"
    host.core.secrets["secrets/other"] = Secret({"value": 1})
    now = read_clocks()
    for path, brief in ((PATH, False), ("secrets/other", True)):
        entry = (await host.reader.read("app", path)).entry
        assert entry.is_fresh(now)
        assert entry.is_fresh(now.after(CacheSettings().ttl - 1)) is not brief


async def test_paths_that_hold_nothing_leave_room_for_others(host: Host) -> None:
    """However many paths an application asks for in vain, another one is told of its changes."""
    core = host.core
    core.watch_limit = 10
    for number in range(30):
        with pytest.raises(NotFound):
            await host.reader.read("greedy", f"secrets/none/{number}")
    assert await host.value() == (1, "core")
    await core.write(PATH, value=2)
    await until(lambda: core.reads(PATH) == 2)
    await until(lambda: core.sessions[0].watched == {PATH})


async def test_a_file_is_told_when_its_secret_comes_into_being(host: Host) -> None:
    """What a file needs stays watched although there is nothing yet."""
    with pytest.raises(NotFound):
        await host.reader.read(FILES, "secrets/later")
    await host.core.write("secrets/later", value=1)
    await until(lambda: host.changes == ["secrets/later"])


async def test_what_was_pushed_out_of_the_cache_is_not_watched(core: CorePeer) -> None:
    """A cache that is full watches no more than it holds."""
    core.secrets.update({f"secrets/{number}": Secret({"value": number}) for number in range(150)})
    async with running(Host(core)) as host:
        for number in range(150):
            await host.reader.read("app", f"secrets/{number}")
        await until(lambda: core.sessions[0].watched == {f"secrets/{number}" for number in range(50, 150)})


# Staying connected


async def test_it_comes_back_and_reads_again(core: CorePeer, host: Host) -> None:
    """After a lost connection paths are watched again and what was cached is read again."""
    await host.value()
    core.secrets[PATH] = Secret({"value": 2}, 2)  # nobody is told: it happens while the agent is away
    await core.sessions[0].socket.close(1011)
    await until(lambda: host.opened_times == 2)
    await until(lambda: core.reads(PATH) == 2)
    assert (await host.value())[0] == 2
    await core.write(PATH, value=3)
    await until(lambda: core.reads(PATH) == 3)


async def test_reads_survive_a_lost_connection(core: CorePeer, host: Host) -> None:
    """A read whose connection ends under it is asked again on the next one."""
    broken = asyncio.Event()

    async def on_read(_path: str) -> None:
        if not broken.is_set():
            broken.set()
            core.sessions[0].socket.transport.abort()
            await asyncio.Event().wait()

    core.on_read = on_read
    assert await host.value() == (1, "core")


async def test_watches_survive_a_lost_connection(core: CorePeer, host: Host) -> None:
    """When the connection that came back ends as paths are watched again, the next one watches them."""
    await host.value()
    broken = asyncio.Event()

    async def on_watch() -> None:
        if not broken.is_set():
            broken.set()
            core.sessions[-1].socket.transport.abort()
            await asyncio.Event().wait()

    core.on_watch = on_watch
    await core.sessions[0].socket.close(1011)
    await until(lambda: host.opened_times == 2)
    assert watched(core, PATH) == 3
    await core.write(PATH, value=2)
    await until(lambda: host.changes == [PATH])


async def test_requests_made_while_a_connection_closes_are_asked_again(core: CorePeer, host: Host) -> None:
    """Whoever asks between the gateway's goodbye and the end is answered on the next connection."""
    core.secrets.update({f"secrets/n/{n}": Secret({"value": n}) for n in range(200)})
    closing = asyncio.create_task(core.sessions[0].socket.close(1011))
    asked = []
    for path in core.secrets:
        asked.append(asyncio.create_task(host.value(path)))
        await asyncio.sleep(0)
    assert {(await one)[1] for one in asked} == {"core"}
    await closing


async def test_it_fails_over_to_another_gateway(core: CorePeer, authorities: Authorities) -> None:
    """With several URLs the agent ends up where somebody answers."""
    core.secrets[PATH] = Secret({"value": 1})
    dead = ("wss://127.0.0.1:9", "wss://127.0.0.1:10")
    async with running(Host(core, *dead, core.agent_url)) as host:
        await until(lambda: host.opened_times == 1)
        assert (await host.value())[0] == 1


async def test_it_goes_where_a_drain_sends_it(core: CorePeer, host: Host, authorities: Authorities) -> None:
    """After ``drain`` the agent moves to a gateway that was named, and no read fails meanwhile."""
    second = CorePeer(authorities=authorities, agent_id=core.agent_id, secrets=core.secrets)
    async with second.agents():
        await core.push(wire.Drain(urls=(second.agent_url,), within=0.2))
        values = [await host.reader.read(f"app-{n}", PATH) for n in range(20)]
        await until(lambda: host.opened_times == 2)
        assert len(second.sessions) == 1
        assert len(values) == 20
        await until(lambda: core.sessions == [])


async def test_it_learns_where_the_gateways_are(core: CorePeer, authorities: Authorities) -> None:
    """What Core names on a conversation or when it sends agents away is known from then on."""
    second = CorePeer(authorities=authorities, agent_id=core.agent_id, secrets=core.secrets)
    async with second.agents(), running(Host(core, core.agent_url, "wss://127.0.0.1:9")) as host:
        core.agent_urls = second.agent_urls = (core.agent_url, "wss://127.0.0.1:10", "http://127.0.0.1:11")
        await until(lambda: host.opened_times == 1)
        assert host.endpoints == [{core.agent_url, "wss://127.0.0.1:10"}]
        await core.push(wire.Drain(urls=(second.agent_url,), within=0.1))
        await until(lambda: host.opened_times == 2)
        assert host.endpoints[1:] == [{core.agent_url, "wss://127.0.0.1:10", second.agent_url}]


async def test_it_looks_for_core_on_the_hosts_from_its_settings(core: CorePeer) -> None:
    """When no gateway that it knows answers, it tries the usual port there and keeps what it found."""
    core.agent_urls = ("wss://127.0.0.1:10",)
    core.secrets[PATH] = Secret({"value": 1})
    async with running(Host(core, "wss://127.0.0.1:9", guesses=(core.agent_url,))) as host:
        await until(lambda: host.opened_times == 1)
        assert host.endpoints == [{core.agent_url, "wss://127.0.0.1:10"}]
        await core.sessions[0].socket.close(1011)
        await until(lambda: host.opened_times == 2)


@pytest.mark.parametrize("way", ["close", "http"])
async def test_a_busy_gateway_is_given_time(core: CorePeer, way: str) -> None:
    """``try again later`` is obeyed, in a close frame and as HTTP answer, and then the agent is back."""
    if way == "close":
        core.close_with = (CloseCode.TRY_AGAIN_LATER, "unavailable; retry in 1")
    else:
        core.refuse_with = (503, {"Retry-After": "1"})
    async with running(Host(core)) as host:
        await until(lambda: core.sessions == [] and host.connection.away)
        core.close_with = core.refuse_with = None
        await until(lambda: host.opened_times == 1)


async def test_a_revoked_identity_is_not_used_again(core: CorePeer) -> None:
    """When Core says that the agent is revoked, the connection ends for good."""
    core.close_with = (CloseCode.REVOKED, "revoked")
    async with running(Host(core)) as host:
        assert host.holding is not None
        with pytest.raises(IdentityRefused) as caught:
            await host.holding
    assert caught.value.revoked


async def test_an_expired_identity_is_not_shown(core: CorePeer) -> None:
    """An expired certificate is not used for a connection; it is not a revocation."""
    host = Host(core, lifetime=timedelta(seconds=1))
    await until(lambda: host.connection.identity.validity.not_after <= datetime.now(UTC))
    async with running(host):
        assert host.holding is not None
        with pytest.raises(IdentityRefused) as caught:
            await host.holding
    assert not caught.value.revoked


async def test_without_core_what_is_cached_serves(core: CorePeer, authorities: Authorities) -> None:
    """With every gateway gone, cached secrets serve at once and others fail."""
    away = CorePeer(authorities=authorities, agent_id=core.agent_id)
    away.secrets[PATH] = Secret({"value": 1})
    async with contextlib.AsyncExitStack() as listening:
        await listening.enter_async_context(away.agents())
        async with running(Host(away)) as host:
            await until(lambda: host.opened_times == 1)
            await host.value()
            await listening.aclose()
            host.reader.outdate_all()
            await until(lambda: host.connection.away)
            assert await host.value() == (1, "stale")
            with pytest.raises(Unavailable):
                await host.reader.read("app", "secrets/other")


async def test_a_core_that_hangs_does_not_hold_up_what_can_be_bridged(host: Host) -> None:
    """While Core does not answer, a cached secret serves after a moment, and the read goes on."""
    release = asyncio.Event()

    async def on_read(_path: str) -> None:
        await release.wait()

    await host.value()
    host.core.on_read = on_read
    host.core.secrets[PATH] = Secret({"value": 2}, 2)
    host.reader._cache.changed(PATH)
    asked = asyncio.create_task(host.value())
    await until(lambda: host.core.reads(PATH) == 2)
    assert await asked == (1, "stale")
    release.set()
    await until(lambda: host.reader._flights == {})
    assert await host.value() == (2, "cache")
    assert host.core.reads(PATH) == 2


async def test_a_broken_protocol_ends_the_conversation(core: CorePeer, host: Host) -> None:
    """A frame that is no message closes the connection with the protocol's code; then the agent is back."""
    session = core.sessions[0]
    await session.socket.send('{"type": "surprise"}')
    await until(lambda: session.socket.close_code == CloseCode.PROTOCOL)
    await until(lambda: host.opened_times == 2)


async def test_signs_of_life_are_given(core: CorePeer, host: Host) -> None:
    """A ping of the protocol is answered."""
    await core.push(wire.Ping(server_time=datetime.now(UTC)))
    await until(lambda: wire.Pong() in core.messages)


# Renewal


@pytest.mark.parametrize("occasion", ["due", "told"])
async def test_the_certificate_is_renewed(core: CorePeer, place: Path, occasion: str) -> None:
    """When it is due, or when Core says so, a new certificate with a new key is stored, then used."""
    host = Host(core, lifetime=timedelta(seconds=3) if occasion == "due" else None)
    first = host.connection.identity
    with open_state(place / "state") as state:
        renewal = Renewal(host.connection, state, "ecdsa-p256", SystemClock())
        async with running(host):
            await until(lambda: host.opened_times == 1)
            work = asyncio.create_task(renewal.run())
            if occasion == "told":
                await core.push(wire.CertificateDue(not_after=first.validity.not_after))
                await host.due.wait()
                renewal.hurry()
            await until(lambda: host.connection.identity is not first)
            await until(lambda: host.opened_times == 2)
            work.cancel()
        renewed = host.connection.identity
        stored = state.read("identity.pem")
    assert stored == renewed.to_pem()
    assert renewed.key.private_numbers() != first.key.private_numbers()
    assert renewed.agent_id == first.agent_id
    assert renewed.chain[0].serial_number != first.chain[0].serial_number
