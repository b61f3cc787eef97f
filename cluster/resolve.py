"""From settings to what a node's processes read: files checked, folders made, ports chosen.

Everything that can be wrong on this machine is found here, before anything is started.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cluster.folders import check_private, fresh_folder, private_folder, secret_file
from cluster.kms import OPENER
from cluster.kms.settings import key_services
from cluster.locks import Lock
from cluster.ports import Ports
from cluster.ray_plan import RayPlan, RayTls
from cluster.settings import Settings
from secrethub.errors import Conflict, Misconfigured
from secrethub.ids import new_uuid
from secrethub.node import Listener, NodeSettings, read_cluster_key, write_node_file

_LONGEST_RUN_DIR = 36
"""Bytes. Ray puts up to 69 more into the address of a socket, which may have 107."""
_EARLIER_NODE_PATIENCE = 30.0
"""Seconds; a killed node's warden needs one or two of them."""
_MOMENT = 2.0
"""Seconds to wait without a word."""

_OPTIONS = {
    "http.port": "--port",
    "tls.port": "--tls-port",
    "agents.port": "--agent-port",
    "serve.port": "--serve-port",
    "metrics.port": "--metrics-port",
}
"""What sets a port of ``secrethub dev``, by the setting of a server."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What a node holds while any of its processes lives."""

    ports: Ports = field(default_factory=Ports)
    locks: list[Lock] = field(default_factory=list)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The locks' descriptors, for the process that ends last."""
        return (*self.ports.descriptors, *(lock.descriptor for lock in self.locks))

    def release(self) -> None:
        """Give up this process's share."""
        self.ports.close()
        for lock in self.locks:
            lock.close()
        self.locks.clear()


def resolve(
    settings: Settings,
    claims: Claims,
    *,
    dev: bool = False,
    with_ray: bool = True,
    patience: float = _EARLIER_NODE_PATIENCE,
    moment: float = _MOMENT,
) -> NodeSettings:
    """Check files, make folders, choose ports, and write the node file.

    Args:
        settings: checked settings.
        claims: gets what this node claims; the caller releases it.
        dev: mark the node as one of ``secrethub dev``.
        with_ray: whether Ray Serve's ingress exists.
        patience: seconds for what an earlier life of the node left behind to be gone.
        moment: seconds of it that pass without a word.

    Returns:
        The settings of the node's processes, also written to ``run_dir/node.json``.

    Raises:
        Misconfigured: something cannot work; the setting is named.
        Conflict: a port or the node's folder is in use.
    """
    state = private_folder(settings.state_dir)
    lock = Lock(state / "lock")
    claims.locks.append(lock)
    _take(lock, state, patience, min(patience, moment))
    run = _run_dir(settings.run_dir or state / "run", state)
    listener = partial(_listener, claims.ports, _OPTIONS if dev else {})
    http, tls, agents, metrics = settings.http, settings.tls, settings.agents, settings.metrics
    agents_at = listener("agents.port", agents.host, agents.port) if agents.enabled else None
    node = NodeSettings(
        node=settings.node or _kept_name(state / "node-name"),
        run_dir=str(run),
        state_dir=str(state),
        database_url=_required(settings.database_url.get_secret_value() if settings.database_url else None),
        cluster_key_file=_required(str(settings.cluster_key_file) if settings.cluster_key_file else None),
        http=listener("http.port", http.host, http.port) if http.enabled else None,
        tls=listener("tls.port", tls.host, tls.port) if tls.enabled else None,
        agents=agents_at,
        serve=listener("serve.port", settings.serve.host, settings.serve.port) if with_ray else None,
        metrics=(
            listener("metrics.port", metrics.host, metrics.port, shared=False) if metrics.enabled else None
        ),
        agent_urls=agents.urls or _default_urls(agents_at, tls.names),
        tls_names=tls.names,
        tls_addresses=tls.addresses,
        tls_certificate_file=_path(tls.certificate_file),
        tls_key_file=_path(tls.key_file),
        allowed_hosts=http.allowed_hosts,
        trusted_proxies=settings.trusted_proxies,
        init_token_file=(
            str(check_private(settings.init_token_file, "init_token_file"))
            if settings.init_token_file
            else None
        ),
        root_key_type=settings.pki.root_key_type,
        audit_dirs=tuple(str(path) for path in settings.audit.dirs),
        syslog_socket=str(settings.audit.syslog_socket),
        outbound_networks=settings.outbound.allowed_networks,
        key_services=key_services(settings.key_services),
        key_service_opener=OPENER if settings.key_services else None,
        dev=dev,
        database_pool=settings.limits.database_pool,
        max_body=settings.limits.max_body,
    )
    _check_cluster_key(node)
    _check_certificate(settings)
    write_node_file(run / "node.json", node)
    return node


def remove_short_run_dir(state: Path) -> None:
    """Remove the run directory of a node that has ended, if its path had been too long."""
    link = state / "run-dir"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def plan_ray(settings: Settings, node: NodeSettings, claims: Claims) -> RayPlan:
    """Decide how this node's Ray is started.

    Raises:
        Misconfigured: a file cannot be used.
        Conflict: a port is in use.
    """
    ray, head, ports = settings.ray, settings.role == "head", claims.ports
    run, state = Path(node.run_dir), Path(node.state_dir)
    # What dev starts has no other node that could outlive it.
    keep = ray.redis_address is None and not node.dev
    token = ray.token_file
    if token is None:
        token = secret_file(state / "ray-token")
    host = "127.0.0.1" if ray.host in {"localhost", "::1"} else ray.host
    gcs = ray.address or f"{host}:{ports.claim('ray.port', host, ray.port)}"
    loopback = "127.0.0.1"
    return RayPlan(
        node=node.node,
        head=head,
        host=host,
        gcs=gcs,
        temp_dir=_ray_folder(ray.temp_dir or run / "r"),
        token_file=str(check_private(token, "ray.token_file")),
        node_file=str(run / "node.json"),
        dashboard_port=(
            # One machine may run many dev installations; the first has the port that people know.
            ports.claim("ray.dashboard_port", loopback, ray.dashboard_port, or_another=node.dev)
            if head
            else 0
        ),
        dashboard_metrics_port=ports.claim("ray.dashboard_port", loopback, 0) if head else 0,
        launcher_config=_path(ray.autoscaling_config),
        launcher_dir=str(private_folder(state / "launcher")) if ray.autoscaling_config else None,
        launcher_metrics_port=ports.claim("ray.autoscaling_config", loopback, 0) if head else 0,
        agent_port=ports.claim("ray.agent_port", loopback, 0),
        storage=_ray_storage(state) if head and keep else None,
        redis_address=ray.redis_address,
        redis_username=ray.redis_username,
        redis_password=ray.redis_password.get_secret_value() if ray.redis_password else None,
        tls=(
            RayTls(
                certificate_file=str(ray.tls.certificate_file),
                key_file=str(check_private(ray.tls.key_file, "ray.tls.key_file")),
                ca_file=str(ray.tls.ca_file),
            )
            if ray.tls
            else None
        ),
        reconnect_timeout=ray.reconnect_timeout,
    )


def _take(lock: Lock, state: Path, patience: float, moment: float) -> None:
    """Take the lock of the node's folder; who waits for it longer than a moment is told for what."""
    taken = f"state_dir: another node runs in {state}, or its processes have not ended yet"
    try:
        lock.take(patience=moment, otherwise=taken)
    except Conflict:
        if patience > moment:
            _log.warning("%s: waiting up to %.0f s for their end", taken, patience - moment)
            lock.take(patience=patience - moment, otherwise=taken)
            return
        raise


def _check_cluster_key(node: NodeSettings) -> None:
    path = check_private(Path(node.cluster_key_file), "cluster_key_file")
    if not re.fullmatch(rb"[0-9a-fA-F]{64}", path.read_bytes().strip()):
        raise Misconfigured(
            f"cluster_key_file: {path} must hold 64 hexadecimal digits (openssl rand -hex 32)"
        )
    read_cluster_key(node)


def _run_dir(wanted: Path, state: Path) -> Path:
    """Return a private, empty folder whose path is short enough, and remove what a killed node left."""
    remove_short_run_dir(state)
    if len(os.fsencode(wanted)) <= _LONGEST_RUN_DIR:
        return _emptied(wanted)
    short = Path(tempfile.mkdtemp(prefix="secrethub-", dir="/tmp"))
    (state / "run-dir").symlink_to(short)
    return short


def _ray_folder(path: Path) -> str:
    if len(os.fsencode(path)) > _LONGEST_RUN_DIR + 2:
        raise Misconfigured(f"ray.temp_dir: the path may have {_LONGEST_RUN_DIR + 2} bytes at most")
    return str(private_folder(path))


def _ray_storage(state: Path) -> str:
    """Return the folder where Ray's head keeps what it knows; another version of Ray starts afresh."""
    return str(private_folder(state / f"ray-{importlib.metadata.version('ray')}"))


def _emptied(run: Path) -> Path:
    """Empty a run directory of ours; one that holds other people's things is refused."""
    marker = run / "secrethub-run-dir"
    if run.exists() and any(run.iterdir()) and not marker.exists():
        raise Misconfigured(f"run_dir: {run} is not empty; SecretHub empties this folder at every start")
    fresh_folder(run)
    marker.touch()
    return run


def _kept_name(path: Path) -> str:
    if not path.exists():
        path.write_text(new_uuid(), "ascii")
    return path.read_text("ascii").strip()


def _listener(
    ports: Ports, options: Mapping[str, str], setting: str, host: str, port: int, *, shared: bool = True
) -> Listener:
    claimed = ports.claim(options.get(setting, setting), host, port, shared=shared)
    return Listener(host=host, port=claimed)


def _default_urls(agents: Listener | None, names: tuple[str, ...]) -> tuple[str, ...]:
    if agents is None:
        return ()
    return (f"wss://{names[0] if names else agents.host}:{agents.port}",)


def _check_certificate(settings: Settings) -> None:
    certificate, key = settings.tls.certificate_file, settings.tls.key_file
    if certificate is None or key is None:
        return
    check_private(key, "tls.key_file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as exc:
        raise Misconfigured(f"tls.certificate_file, tls.key_file: {exc}") from exc


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _required(value: str | None) -> str:
    if value is None:
        raise Misconfigured("database_url and cluster_key_file are needed")
    return value
