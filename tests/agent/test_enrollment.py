"""First contact and enrolment: whom the agent believes, and what it leaves behind when it is killed."""

from __future__ import annotations

import asyncio
import stat
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from agent_process import AgentProcess
from core_peer import Authorities, CorePeer, until

from agent import identity, trust
from agent.configuration import load
from agent.core_api import CoreApi
from agent.enrollment import PENDING_FILE, ensure_identity
from agent.identity import IDENTITY_FILE, Identity
from agent.settings import CoreSettings, Settings
from agent.state import StateDirectory, open_state
from secrethub.clock import SystemClock
from secrethub.errors import Conflict, Misconfigured, PermissionDenied, SecretHubError, Unavailable
from secrethub.pki import chain
from secrethub.pki.tls import server_context

FILE = '[[template]]\ncontent = "x"\ndestination = "/nowhere/x"\n'


def settings(agent: AgentProcess, text: str = FILE, **core: str) -> Settings:
    """Return the settings of an agent."""
    agent.configure(text, **core)
    return load(agent.config, {})


async def enroll(chosen: Settings) -> Identity:
    """Enrol as the daemon does."""
    with open_state(chosen.state_dir) as state:
        return await ensure_identity(chosen, state, SystemClock())


async def log_in(core: CoreSettings) -> None:
    """Send Core a SecretID, if it is believed."""
    url = core.urls[0]
    await CoreApi(url, await trust.trust_in(core, url)).login("approle", "role-1", "canary-secret-id")


async def refused(core: CoreSettings) -> SecretHubError:
    """Return the error of one such try, which the daemon would wait out."""
    with pytest.raises(SecretHubError) as caught:
        await log_in(core)
    return caught.value


@pytest.fixture
def ca_file(core: CorePeer, place: Path) -> str:
    """The root as a file."""
    path = place / "ca.pem"
    path.write_text(core.authorities.root_pem)
    return str(path)


async def test_enrolment_leaves_an_identity_and_nothing_else(core: CorePeer, agent: AgentProcess) -> None:
    """Afterwards there is one private identity, the SecretID's file is gone, and so is the token."""
    held = await enroll(settings(agent))
    assert held.agent_id == core.agent_id
    assert held.root_sha256 == core.authorities.root_sha256
    assert core.requests[-3:] == [
        "POST /v1/auth/approle/login",
        "POST /v1/agents/enroll/begin",
        "POST /v1/agents/enroll",
    ]
    body = core.bodies[-1]
    assert (body["name"], body["labels"], set(body)) == ("web-1", {}, {"csr", "name", "version", "labels"})
    assert sorted(path.name for path in agent.state.iterdir()) == ["endpoints.json", IDENTITY_FILE, "lock"]
    assert stat.S_IMODE(agent.state.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in agent.state.iterdir())
    assert not agent.secret_id_file.exists()
    assert core.token.encode() not in b"".join(path.read_bytes() for path in agent.state.iterdir())


async def test_a_kept_secret_id_stays(core: CorePeer, agent: AgentProcess) -> None:
    """With keep = true the SecretID's file stays where it is."""
    agent.configure(FILE)
    agent.config.write_text(agent.config.read_text().replace("key_type", "keep = true\nkey_type"))
    await enroll(load(agent.config, {}))
    assert agent.secret_id_file.exists()


@pytest.mark.parametrize("written", ["floor/machines", "auth/floor/machines/"])
async def test_approle_may_be_mounted_elsewhere(core: CorePeer, agent: AgentProcess, written: str) -> None:
    """The agent logs in where its settings say that AppRole is mounted."""
    core.mount = "floor/machines"
    agent.configure(FILE)
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[auth]", f'[auth]\nmount = "{written}"', 1))
    await enroll(load(agent.config, {}))
    assert "POST /v1/auth/floor/machines/login" in core.requests
    for wrong in ("floor//machines", "floor/../machines", ""):
        agent.config.write_text(text.replace("[auth]", f'[auth]\nmount = "{wrong}"', 1))
        with pytest.raises(Misconfigured, match="mount"):
            load(agent.config, {})


async def test_an_enrolled_agent_does_not_ask_again(core: CorePeer, agent: AgentProcess) -> None:
    """With a valid identity nothing is sent, and no credentials are needed."""
    first = await enroll(settings(agent))
    before = len(core.requests)
    chosen = settings(agent)
    agent.secret_id_file.unlink()
    assert (await enroll(chosen)).to_pem() == first.to_pem()
    assert len(core.requests) == before


async def test_rsa_keys_are_the_default(core: CorePeer, agent: AgentProcess) -> None:
    """Unless told otherwise the agent makes an RSA key of 2048 bits."""
    agent.configure(FILE)
    agent.config.write_text(agent.config.read_text().replace('key_type = "ecdsa-p256"', ""))
    held = await enroll(load(agent.config, {}))
    assert held.key.key_size == 2048


# Whom to believe


async def test_a_ca_file_is_enough(core: CorePeer, agent: AgentProcess, ca_file: str) -> None:
    """The root may be given as a file, with or without its pin."""
    await log_in(settings(agent, ca_file=ca_file).core)
    pin = core.authorities.root_sha256
    await log_in(settings(agent, ca_file=ca_file, ca_sha256=pin).core)


async def test_the_pinned_root_is_found_although_the_server_does_not_show_it(
    core: CorePeer, agent: AgentProcess
) -> None:
    """A server that sends only its own part of the chain publishes the root, and the pin finds it there."""
    certificates, key = core.authorities.gateway()
    shown = chain.from_pem(certificates.decode())[:-1]
    async with core.https((chain.to_pem(*shown).encode(), key)):
        await log_in(settings(agent).core)
    assert core.requests[0] == "GET /v1/pki/ca_chain"


@pytest.mark.parametrize("chosen", ["pin", "file"])
async def test_another_root_gets_nothing(
    core: CorePeer, agent: AgentProcess, place: Path, chosen: str
) -> None:
    """With another pin or another root in the file no request with a secret leaves."""
    stranger = Authorities("cluster-1")
    (place / "other.pem").write_text(stranger.root_pem)
    given = {"ca_sha256": stranger.root_sha256} if chosen == "pin" else {"ca_file": str(place / "other.pem")}
    error = await refused(settings(agent, **given).core)
    assert isinstance(error, Unavailable)
    assert not [request for request in core.requests if request.startswith("POST")]


async def test_without_any_ca_only_public_certificates_are_believed(
    core: CorePeer, agent: AgentProcess
) -> None:
    """No CA file and no pin means the system's roots, not no check."""
    error = await refused(CoreSettings(urls=settings(agent).core.urls))
    assert "not trusted" in error.message
    assert core.requests == []


async def test_a_certificate_for_another_host_is_refused(core: CorePeer) -> None:
    """The right root does not help a server whose certificate is for another address."""
    context = server_context(*core.authorities.gateway())
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.2", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.2:{server.sockets[0].getsockname()[1]}"
        error = await refused(CoreSettings(urls=(url,), ca_sha256=core.authorities.root_sha256))
    assert "not trusted" in error.message


@pytest.mark.parametrize("impostor", ["server", "nameless"])
async def test_below_the_clusters_root_only_a_gateway_is_core(
    core: CorePeer, agent: AgentProcess, impostor: str, ca_file: str
) -> None:
    """Whoever gets a certificate from ``pki/issue``, for whatever name, cannot take the SecretID."""
    async with core.https(getattr(core.authorities, impostor)()):
        for given in ({}, {"ca_file": ca_file}):
            error = await refused(settings(agent, **given).core)
            assert "no gateway" in error.message
    assert not [request for request in core.requests if request.startswith("POST")]


async def test_an_operators_own_certificate_is_believed(
    core: CorePeer, agent: AgentProcess, place: Path
) -> None:
    """A certificate from the operator's own CA serves first contact; the cluster's root is pinned then."""
    own = trustme.CA()
    issued = own.issue_cert("127.0.0.1")
    own.cert_pem.write_to_path(place / "own.pem")
    pem = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    async with core.https((pem, issued.private_key_pem.bytes())):
        held = await enroll(settings(agent, ca_file=str(place / "own.pem")))
    assert held.root_sha256 == core.authorities.root_sha256


async def test_a_ca_file_without_the_pinned_root_is_a_mistake(
    core: CorePeer, agent: AgentProcess, ca_file: str
) -> None:
    """File and pin must agree."""
    with pytest.raises(Misconfigured, match=r"core\.ca_file"):
        await log_in(settings(agent, ca_file=ca_file, ca_sha256="00" * 32).core)


async def test_an_answer_that_names_another_root_is_refused(
    core: CorePeer, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain that Core gives must end at the root that Core names."""
    stranger = Authorities(core.authorities.cluster)
    monkeypatch.setattr(type(core.authorities), "chain_pem", stranger.chain_pem)
    with pytest.raises(SecretHubError):
        await enroll(settings(agent))
    assert not (agent.state / IDENTITY_FILE).exists()
    assert agent.secret_id_file.exists()


# What Core may answer


async def test_wrong_credentials_end_the_daemon_with_a_reason(core: CorePeer, agent: AgentProcess) -> None:
    """A refused login is no reason to wait: the agent says so and exits with 1."""
    agent.configure(FILE)
    agent.secret_id_file.write_text("canary-wrong")
    process = await agent.start()
    assert await asyncio.wait_for(process.wait(), 20) == 1
    assert agent.log()[-1]["code"] == "permission_denied"
    assert "canary" not in agent.log_file.read_text()
    assert agent.secret_id_file.exists()


async def test_a_taken_name_ends_the_daemon(core: CorePeer, agent: AgentProcess) -> None:
    """A name that belongs to another key is refused, and the SecretID stays for another try."""
    core.names["web-1"] = "another key"
    with pytest.raises(Conflict):
        await enroll(settings(agent))
    assert agent.secret_id_file.exists()


async def test_the_daemon_waits_for_core(place: Path, authorities: Authorities) -> None:
    """While Core cannot be reached the agent waits; it enrols when Core is there; it stops when asked."""
    core = CorePeer(authorities=authorities, https_url="https://127.0.0.1:9")
    agent = AgentProcess(core, place)
    agent.configure(FILE)
    await agent.start()
    await agent.until(lambda: agent.logged("enrolment has to wait"))
    assert await agent.stop() == 0
    assert agent.secret_id_file.exists()


async def test_an_expired_identity_enrols_again_with_its_key(core: CorePeer, agent: AgentProcess) -> None:
    """A host that was away for too long proves its name with the old key."""
    core.lifetime = timedelta(seconds=2)
    first = await enroll(settings(agent))
    core.lifetime = None
    await until(lambda: first.validity.not_after <= SystemClock().now())
    second = await enroll(settings(agent))
    assert second.key.private_numbers() == first.key.private_numbers()
    assert second.validity.not_after > first.validity.not_after


# Killed in between


@pytest.mark.parametrize(
    "step",
    ["/v1/auth/approle/login", "/v1/agents/enroll/begin", "/v1/agents/enroll"],
)
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
async def test_killed_at_a_step_it_goes_on(
    core: CorePeer, agent: AgentProcess, step: str, answered: bool
) -> None:
    """Killed at any step, before or after Core acted, the next start ends enrolment with the same key."""
    arrived, stall = asyncio.Event(), asyncio.Event()
    original = core._answer

    async def before(path: str) -> None:
        if path == step and not arrived.is_set():
            arrived.set()
            if answered:
                original(path, core.token, core.bodies[-1])
            await stall.wait()

    core.before = before
    agent.configure(FILE)
    await agent.start()
    await asyncio.wait_for(arrived.wait(), 20)
    await agent.kill()
    assert agent.secret_id_file.exists()
    stall.set()
    core.before = None
    await agent.start()
    await agent.until((agent.state / IDENTITY_FILE).exists)
    await agent.until(lambda: not agent.secret_id_file.exists())
    assert await agent.stop() == 0
    assert not (agent.state / PENDING_FILE).exists()
    assert len(core.names) == 1


async def test_a_secret_id_for_one_login_is_not_lost(core: CorePeer, agent: AgentProcess) -> None:
    """Killed after the login, the agent goes on with the token it has: a second login would fail."""
    core.logins_left = 1
    arrived, stall = asyncio.Event(), asyncio.Event()

    async def before(path: str) -> None:
        if path == "/v1/agents/enroll" and not arrived.is_set():
            arrived.set()
            await stall.wait()

    core.before = before
    agent.configure(FILE)
    await agent.start()
    await asyncio.wait_for(arrived.wait(), 20)
    await agent.kill()
    stall.set()
    await agent.start()
    await agent.until((agent.state / IDENTITY_FILE).exists)


AT = "auth/approle/role/web/secret-id"


def wrapped(agent: AgentProcess, core: CorePeer, made_at: str = AT, secret_id: str = "") -> None:
    """Configure an agent whose SecretID's file holds a wrapping token."""
    agent.configure(FILE)
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[auth]", f'[auth]\nwrapped_from = "/v1/{AT}"', 1))
    agent.secret_id_file.write_text("hvs.canary-wrapping")
    core.wrapped["hvs.canary-wrapping"] = (made_at, secret_id or core.secret_id)


async def test_a_wrapped_secret_id_is_opened(core: CorePeer, agent: AgentProcess) -> None:
    """A wrapping token from where it should be is opened, and nothing of it stays."""
    wrapped(agent, core)
    await enroll(load(agent.config, {}))
    assert not core.wrapped
    assert not agent.secret_id_file.exists()
    kept = b"".join(path.read_bytes() for path in agent.state.iterdir())
    assert core.secret_id.encode() not in kept


async def test_a_swapped_wrapping_token_stays_closed(core: CorePeer, agent: AgentProcess) -> None:
    """One that was made elsewhere is not opened, and no SecretID of its maker is used."""
    wrapped(agent, core, made_at="sys/wrapping/wrap")
    with pytest.raises(PermissionDenied, match="sys/wrapping/wrap"):
        await enroll(load(agent.config, {}))
    assert core.wrapped
    assert "POST /v1/auth/approle/login" not in core.requests


async def test_an_opened_secret_id_is_not_lost(core: CorePeer, agent: AgentProcess) -> None:
    """Killed before the login, the agent goes on with what it opened; refused, it takes the next one."""
    wrapped(agent, core)
    arrived, stall = asyncio.Event(), asyncio.Event()

    async def before(path: str) -> None:
        if path == "/v1/auth/approle/login" and not arrived.is_set():
            arrived.set()
            await stall.wait()

    core.before = before
    await agent.start()
    await asyncio.wait_for(arrived.wait(), 20)
    await agent.kill()
    stall.set()
    assert not core.wrapped
    core.logins_left = 0
    with pytest.raises(PermissionDenied):
        await enroll(load(agent.config, {}))
    core.logins_left = 1
    core.wrapped["hvs.canary-wrapping"] = (AT, core.secret_id)
    assert (await enroll(load(agent.config, {}))).agent_id == core.agent_id


async def test_a_token_that_ended_is_replaced(core: CorePeer, agent: AgentProcess) -> None:
    """When the token of an earlier try is no longer good, the agent logs in again."""
    chosen = settings(agent)
    with open_state(chosen.state_dir) as state:
        await leave_pending(chosen, state, core)
    core.tokens.clear()
    core.token = "hvs.another"
    assert (await enroll(chosen)).agent_id == core.agent_id


async def leave_pending(chosen: Settings, state: StateDirectory, core: CorePeer) -> None:
    """Leave what an agent leaves that was killed after its login."""
    core.names["web-1"] = "another key"
    with pytest.raises(Conflict):
        await ensure_identity(chosen, state, SystemClock())
    core.names.clear()


async def test_killed_before_cleaning_up_it_cleans_up_later(core: CorePeer, agent: AgentProcess) -> None:
    """The SecretID's file goes at the next start when the agent was killed right after enrolment."""
    chosen = settings(agent)
    with open_state(chosen.state_dir) as state:
        await leave_pending(chosen, state, core)
    pending = (agent.state / PENDING_FILE).read_bytes()
    await enroll(chosen)
    agent.secret_id_file.write_text(core.secret_id)
    (agent.state / PENDING_FILE).write_bytes(pending)
    await enroll(chosen)
    assert not agent.secret_id_file.exists()
    assert not (agent.state / PENDING_FILE).exists()


async def test_a_damaged_identity_is_said(core: CorePeer, agent: AgentProcess) -> None:
    """A damaged file is an error with a name, not a silent new enrolment."""
    chosen = settings(agent)
    await enroll(chosen)
    (agent.state / IDENTITY_FILE).write_bytes(b"damaged")
    with pytest.raises(SecretHubError), open_state(chosen.state_dir) as state:
        identity.load(state)


async def test_refusal_is_told_apart_from_absence(core: CorePeer, agent: AgentProcess) -> None:
    """What Core says about the credentials is PermissionDenied."""
    core.logins_left = 0
    with pytest.raises(PermissionDenied):
        await enroll(settings(agent))
