"""From settings to a node file: what is made, and what is refused before anything starts."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from cluster.ray_plan import environment
from cluster.resolve import Claims, plan_ray, remove_short_run_dir, resolve
from cluster.settings import AgentSettings, HttpSettings, RaySettings, Settings, TlsSettings, load
from secrethub.errors import Conflict, Misconfigured
from secrethub.node import NodeSettings, read_node_file

LOOPBACK = "127.0.0.1"
LAUNCHER = """
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
launcher = LocalNodeProvider({"head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2"]}, "secrethub")
print(launcher.non_terminated_nodes({}))
launcher.create_node({}, {"ray-node-type": "worker"}, 1)
"""
"""What Ray's launcher does at its start: look which machines it has started, and start the others."""
Make = Callable[..., Settings]


@pytest.fixture
def claims() -> Iterator[Claims]:
    """Claims that are released afterwards."""
    made = Claims()
    yield made
    made.release()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Make]:
    """Settings on free ports with their files below ``tmp_path``."""
    key = tmp_path / "cluster.key"
    key.touch(0o600)
    key.write_text("ab" * 32)

    def make(**changes: object) -> Settings:
        fields: dict[str, object] = {
            "state_dir": tmp_path / "state",
            "database_url": SecretStr("postgresql://user:pass@db/x"),
            "cluster_key_file": key,
            "http": HttpSettings(port=0),
            "tls": TlsSettings(host=LOOPBACK, port=0, names=("core.example.com",)),
            "agents": AgentSettings(host=LOOPBACK, port=0),
            "serve": Settings.model_fields["serve"].default.model_copy(update={"port": 0}),
            "metrics": Settings.model_fields["metrics"].default.model_copy(update={"port": 0}),
            "ray": RaySettings(port=0, dashboard_port=0),
        }
        return Settings.model_construct(**(fields | changes))

    yield make
    # Paths of tests are long: their run directories are elsewhere.
    remove_short_run_dir(tmp_path / "state")


def mode(path: str | Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_a_node_file_is_written_for_the_node_s_processes(settings: Make, claims: Claims) -> None:
    """Free ports are chosen, folders are private, and the node file holds what was resolved."""
    node = resolve(settings(), claims)
    assert read_node_file(f"{node.run_dir}/node.json") == node
    assert mode(node.run_dir) == mode(node.state_dir) == 0o700
    assert mode(f"{node.run_dir}/node.json") == 0o600
    doors = [node.http, node.tls, node.agents, node.serve, node.metrics]
    ports = {door.port for door in doors if door is not None}
    assert len(ports) == 5
    assert 0 not in ports
    assert node.agents is not None
    assert node.agent_urls == (f"wss://core.example.com:{node.agents.port}",)


def test_every_setting_reaches_the_node_s_processes(tmp_path: Path, claims: Claims) -> None:
    """What a settings file says is what the node file holds, each under its name, and nothing is left out."""
    for name in ("key", "init", "token", "redis"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text("cd" * 32)
    authority = trustme.CA()
    own = authority.issue_cert("core.example.com")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "cert.key").touch(0o600)
    own.private_key_pem.write_to_path(tmp_path / "cert.key")
    short = Path(tempfile.mkdtemp(prefix="sh-"))
    file = tmp_path / "secrethub.toml"
    file.write_text(_EVERYTHING.format(here=tmp_path, short=short))
    try:
        given = load(file)
        node = resolve(given, claims)
        plan = plan_ray(given, node, claims)
    finally:
        shutil.rmtree(short)
    expected = {
        "node": "n-7",
        "run_dir": str(short / "run"),
        "state_dir": str(tmp_path / "state"),
        "database_url": "postgresql://user:pass@db/x",
        "cluster_key_file": str(tmp_path / "key"),
        "agent_urls": ("wss://a.example.com:1", "wss://b.example.com:2"),
        "tls_names": ("core.example.com", "localhost"),
        "tls_addresses": ("127.0.0.9",),
        "tls_certificate_file": str(tmp_path / "cert.pem"),
        "tls_key_file": str(tmp_path / "cert.key"),
        "allowed_hosts": ("core.example.com",),
        "trusted_proxies": ("10.0.0.7/32",),
        "init_token_file": str(tmp_path / "init"),
        "root_key_type": "rsa-4096",
        "audit_dirs": ("/var/audit",),
        "syslog_socket": "/run/log",
        "outbound_networks": ("169.254.0.0/16",),
        "database_pool": 7,
        "max_body": 4096,
    }
    told = {name: getattr(node, name) for name in node.__struct_fields__}
    assert {name: told[name] for name in expected} == expected
    doors = {"http", "tls", "agents", "serve", "metrics"}
    assert {door: told[door].host for door in doors} == {
        "http": "127.0.0.2",
        "tls": "127.0.0.3",
        "agents": "127.0.0.4",
        "serve": "127.0.0.5",
        "metrics": "127.0.0.6",
    }
    (service,) = node.key_services
    assert (service.name, service.kind, service.region) == ("home", "awskms", "eu-central-1")
    assert node.key_service_opener is not None
    # What dev sets is not for a settings file.
    assert set(told) == {*expected, *doors, "key_services", "key_service_opener", "dev"}
    assert (plan.redis_address, plan.redis_username) == ("rediss://redis.example.com:6379", "ray")
    assert (plan.redis_password, plan.reconnect_timeout) == ("cd" * 32, 90)
    assert (plan.temp_dir, plan.token_file) == (str(short / "ray"), str(tmp_path / "token"))


_EVERYTHING = """
role = "head"
node = "n-7"
state_dir = "{here}/state"
run_dir = "{short}/run"
database_url = "postgresql://user:pass@db/x"
cluster_key_file = "{here}/key"
init_token_file = "{here}/init"
trusted_proxies = ["10.0.0.7"]
[http]
host = "127.0.0.2"
port = 0
allowed_hosts = ["core.example.com"]
[tls]
host = "127.0.0.3"
port = 0
names = ["core.example.com", "localhost"]
addresses = ["127.0.0.9"]
certificate_file = "{here}/cert.pem"
key_file = "{here}/cert.key"
[agents]
host = "127.0.0.4"
port = 0
urls = ["wss://a.example.com:1", "wss://b.example.com:2"]
[serve]
host = "127.0.0.5"
port = 0
[metrics]
host = "127.0.0.6"
port = 0
[ray]
port = 0
dashboard_port = 0
token_file = "{here}/token"
temp_dir = "{short}/ray"
redis_address = "rediss://redis.example.com:6379"
redis_username = "ray"
redis_password_file = "{here}/redis"
reconnect_timeout = 90
[pki]
root_key_type = "rsa-4096"
[key_services.home]
type = "awskms"
key = "alias/secrethub"
region = "eu-central-1"
ambient = true
[limits]
database_pool = 7
max_body = 4096
[audit]
dirs = ["/var/audit"]
syslog_socket = "/run/log"
[outbound]
allowed_networks = ["169.254.0.0/16"]
"""


def test_doors_that_are_not_wanted_stay_shut(settings: Make, claims: Claims) -> None:
    """A door that is switched off has no port and no address."""
    shut = resolve(
        settings(
            http=HttpSettings(enabled=False),
            agents=AgentSettings(enabled=False),
            metrics=Settings.model_fields["metrics"].default.model_copy(update={"enabled": False}),
        ),
        claims,
    )
    assert (shut.http, shut.agents, shut.metrics, shut.agent_urls) == (None, None, None, ())
    assert shut.tls is not None


def test_a_node_keeps_its_name(settings: Make) -> None:
    """A node without a given name makes one at its first start and has it ever after."""
    names = set()
    for _ in range(2):
        claims = Claims()
        names.add(resolve(settings(), claims).node)
        claims.release()
    assert len(names) == 1


def test_one_node_per_state_directory(settings: Make, claims: Claims) -> None:
    """A second node on the same state directory is refused."""
    resolve(settings(), claims)
    other = Claims()
    with pytest.raises(Conflict, match="state_dir"):
        resolve(settings(), other, patience=0)
    other.release()


@pytest.mark.parametrize(
    ("part", "setting", "option"),
    [
        ("http", "http.port", "--port"),
        ("tls", "tls.port", "--tls-port"),
        ("agents", "agents.port", "--agent-port"),
        ("serve", "serve.port", "--serve-port"),
        ("metrics", "metrics.port", "--metrics-port"),
    ],
)
@pytest.mark.parametrize("dev", [False, True])
def test_a_port_in_use_is_told_by_what_sets_it(
    settings: Make, claims: Claims, part: str, setting: str, option: str, dev: bool
) -> None:
    """A server is told the setting, ``secrethub dev`` the option, and both what to do."""
    wanted = settings()
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        changed = getattr(wanted, part).model_copy(update={"host": LOOPBACK, "port": port})
        with pytest.raises(Conflict) as refused:
            resolve(settings(**{part: changed}), claims, dev=dev)
    name = option if dev else setting
    assert str(refused.value) == f"{name}: port {port} is in use; choose another, 0 picks a free one"


def test_a_long_path_gets_a_short_run_directory(settings: Make, claims: Claims, tmp_path: Path) -> None:
    """Sockets fit into their addresses: a run directory with a long path is replaced, and cleaned up."""
    deep = tmp_path / ("d" * 60)
    node = resolve(settings(state_dir=deep), claims)
    assert len(os.fsencode(node.run_dir)) <= 36
    assert mode(node.run_dir) == 0o700
    claims.release()
    again = Claims()
    second = resolve(settings(state_dir=deep), again)
    again.release()
    assert not Path(node.run_dir).exists()
    Path(second.run_dir, "node.json").unlink()
    Path(second.run_dir).rmdir()


def test_a_run_directory_with_other_people_s_files_is_refused(
    settings: Make, claims: Claims, short: Path
) -> None:
    """A folder that is emptied at every start must not be one that somebody else uses."""
    run = short / "run"
    run.mkdir()
    (run / "precious").write_text("keep")
    with pytest.raises(Misconfigured, match="run_dir"):
        resolve(settings(run_dir=run), claims)
    assert (run / "precious").exists()


def test_secret_files_must_be_private(settings: Make, claims: Claims, tmp_path: Path) -> None:
    """A cluster key, Ray token or init token that others can read is refused by name."""
    (tmp_path / "cluster.key").chmod(0o644)
    with pytest.raises(Misconfigured, match="cluster_key_file"):
        resolve(settings(), claims)
    (tmp_path / "cluster.key").chmod(0o600)
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o640)
    claims.release()
    with pytest.raises(Misconfigured, match="init_token_file"):
        resolve(settings(init_token_file=token), claims)


@pytest.mark.parametrize("content", ["ab" * 31, "zz" * 32, "", "é" * 32])
def test_a_cluster_key_that_is_none_is_refused(
    settings: Make, claims: Claims, tmp_path: Path, content: str
) -> None:
    """The message says what a key looks like and how one is made, not what is in the file."""
    (tmp_path / "cluster.key").write_text(content)
    with pytest.raises(Misconfigured, match=r"cluster_key_file: .* 64 hexadecimal digits") as refused:
        resolve(settings(), claims)
    assert "fromhex" not in str(refused.value)


def test_a_missing_cluster_key_is_told_once(settings: Make, claims: Claims, tmp_path: Path) -> None:
    """The path stands once in the message, and the reason in words."""
    (tmp_path / "cluster.key").unlink()
    with pytest.raises(Misconfigured, match="No such file") as refused:
        resolve(settings(), claims)
    assert str(refused.value).count("cluster.key") == 1
    assert "Errno" not in str(refused.value)


def test_waiting_for_an_earlier_node_is_announced(
    settings: Make, claims: Claims, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody sits before a silent terminal: what the start waits for is said after a moment."""
    resolve(settings(), claims)
    other = Claims()
    with pytest.raises(Conflict, match="state_dir"):
        resolve(settings(), other, patience=0.1, moment=0.05)
    other.release()
    assert "waiting" in caplog.text


def test_a_certificate_that_cannot_be_loaded_is_refused(
    settings: Make, claims: Claims, tmp_path: Path
) -> None:
    """The operator's certificate is tried before anything is started."""
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).touch(0o600)
    tls = TlsSettings(host=LOOPBACK, port=0, certificate_file=tmp_path / "c.pem", key_file=tmp_path / "k.pem")
    with pytest.raises(Misconfigured, match=r"tls\.certificate_file"):
        resolve(settings(tls=tls), claims)


def test_a_head_makes_its_ray_token_and_keeps_its_state(settings: Make, claims: Claims) -> None:
    """A head has a private token and a place for what Ray remembers; a dev node remembers nothing."""
    wanted = settings()
    node = resolve(wanted, claims)
    plan = plan_ray(wanted, node, claims)
    assert mode(plan.token_file) == 0o600
    assert len(Path(plan.token_file).read_text().strip()) == 64
    assert plan.storage is not None
    assert mode(plan.storage) == 0o700
    assert mode(plan.temp_dir) == 0o700
    assert plan.host == LOOPBACK
    assert "pass" not in repr(plan)
    dev = NodeSettings(**{name: getattr(node, name) for name in node.__struct_fields__} | {"dev": True})
    assert plan_ray(wanted, dev, claims).storage is None


def test_a_new_head_s_launcher_knows_which_workers_run(
    settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that is started again leaves its workers alone: they serve meanwhile, and have the keys."""
    monkeypatch.setenv("RAY_TMPDIR", "/none")
    wanted = settings(ray=RaySettings(port=0, dashboard_port=0, autoscaling_config=tmp_path / "c.yaml"))
    seen = []
    for _ in range(2):
        claims = Claims()
        plan = plan_ray(wanted, resolve(wanted, claims), claims)
        launcher = subprocess.run(
            [sys.executable, "-c", LAUNCHER],
            env=environment(plan),
            capture_output=True,
            text=True,
            check=True,
        )
        seen.append(launcher.stdout.strip())
        claims.release()
    assert seen == ["[]", "['127.0.0.2']"]
    assert mode(tmp_path / "state" / "launcher") == 0o700


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short path."""
    made = Path(tempfile.mkdtemp(prefix="shr-", dir="/tmp"))
    yield made
    shutil.rmtree(made)
