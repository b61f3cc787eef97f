"""``secrethub dev``: everything on one machine, for development and tests.

Brings a PostgreSQL of its own (or takes ``DATABASE_URL``), makes the cluster's key, initialises and
unseals as any client would, and says in ``dev.json`` where everything is. Convenience costs security
here: the unseal keys lie in a file beside the data. So every door is on loopback, and the database is
marked, so that no server ever runs on it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from cluster.database import prepare_database
from cluster.dev_file import DevFile, Endpoints
from cluster.dev_seal import DevSeal
from cluster.folders import private_folder, secret_file
from cluster.locks import Lock
from cluster.postgres import EmbeddedPostgres
from cluster.ready import local_url, wait_for_agents_door, wait_until_ready
from cluster.resolve import Claims, remove_short_run_dir, resolve
from cluster.settings import (
    AgentSettings,
    HttpSettings,
    MetricsSettings,
    OutboundSettings,
    RaySettings,
    ServeSettings,
    Settings,
    TlsSettings,
)
from cluster.signals import Stop, run_until_stopped
from cluster.start import door, prepare_process, say, start_node
from secrethub.errors import Misconfigured, Unavailable
from secrethub.node import NodeSettings

_LOOPBACK = "127.0.0.1"
_LOCK = "dev.lock"
"""In every folder that a dev has used, for good."""
_DASHBOARD = 8265
"""Ray's usual port for it. Who asks for a free port of Serve gets one for the dashboard too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DevOptions:
    """What the command line offers. Port 0 picks a free one.

    Attributes:
        data_dir: where data is kept; None keeps it in a temporary folder until the end.
        uninitialised: leave init and unseal to the user.
        single_process: no Ray; everything in this process.
        allowed_networks: as ``outbound.allowed_networks`` of a server.
    """

    data_dir: Path | None = None
    uninitialised: bool = False
    single_process: bool = False
    allowed_networks: tuple[str, ...] = ()
    port: int = 4000
    tls_port: int = 4443
    agent_port: int = 4665
    serve_port: int = 8000
    metrics_port: int = 9090


def run_dev(options: DevOptions) -> int:
    """Run a development installation until it is told to stop.

    Returns:
        The command's exit code.

    Raises:
        SecretHubError: it could not be started.
    """
    prepare_process()

    async def work(stop: Stop) -> int:
        async with AsyncExitStack() as stack:
            return await _run(options, stack, stop)

    return run_until_stopped(work)


async def _run(options: DevOptions, stack: AsyncExitStack, stop: Stop) -> int:
    folder = _data_folder(options.data_dir, stack)
    file = DevFile(folder / "dev.json")
    _be_alone(folder, stack)
    # What a dev that was killed left here; a running one's is out of reach now.
    file.remove()
    stack.callback(remove_short_run_dir, folder / "state")
    url, postgres_dir = await _database(folder, options, stack)
    settings = _settings(options, folder, url)
    node, failed = await _start(options, settings, stack, stop)
    endpoints = Endpoints.of(node, database_url=url, postgres_dir=postgres_dir)
    seal = DevSeal(local_url(node.http), private_folder(folder / "state") / "unseal.json", folder / "ca.pem")
    if options.uninitialised:
        file.write(endpoints)
        watch = asyncio.create_task(_tell_root(seal, file, endpoints), name="root-certificate")
        stack.callback(watch.cancel)
    else:
        keys = await seal.open()
        await wait_for_agents_door(node)
        file.write(endpoints, keys, await seal.root_certificate())
    stack.callback(file.remove)
    say(f"secrethub dev is ready: {door(node)}")
    say(
        f"  {file.path} says where everything is"
        + ("" if options.data_dir else "; it ends with this process")
    )
    raise Unavailable(await failed())


async def _tell_root(seal: DevSeal, file: DevFile, endpoints: Endpoints) -> None:
    """Add the root certificate to ``dev.json`` as soon as the user has unsealed."""
    await seal.wait_until_open()
    file.write(endpoints, None, await seal.root_certificate())


def _data_folder(wanted: Path | None, stack: AsyncExitStack) -> Path:
    # PostgreSQL's user passes through here when root runs dev; what lies here is private by itself.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    if wanted is None:
        made = Path(tempfile.mkdtemp(prefix="secrethub-dev-"))
        made.chmod(mode)
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made
    folder = wanted.absolute()
    try:
        if not folder.exists():
            folder.mkdir(mode=mode, parents=True)
            folder.chmod(mode)
        elif not (folder / _LOCK).exists() and any(folder.iterdir()):
            raise Misconfigured(
                f"--data-dir: {folder} has files of something else; name one that is empty or new"
            )
    except OSError as exc:
        raise Misconfigured(f"--data-dir: {exc.filename or folder}: {exc.strerror}") from exc
    return folder


def _be_alone(folder: Path, stack: AsyncExitStack) -> None:
    """Make sure that no other dev uses the folder for as long as this one does."""
    try:
        lock = Lock(folder / _LOCK)
    except OSError as exc:
        raise Misconfigured(f"--data-dir: {folder}: {exc.strerror}") from exc
    stack.callback(lock.close)
    lock.take(patience=0, otherwise=f"--data-dir: another secrethub dev runs in {folder}")


async def _database(folder: Path, options: DevOptions, stack: AsyncExitStack) -> tuple[str, Path | None]:
    """Return the database's URL and, if it is ours, where its data is."""
    given = os.environ.get("DATABASE_URL")
    if given:
        return given, None
    postgres = EmbeddedPostgres(folder / "postgres")

    async def end() -> None:
        await postgres.stop()
        if options.data_dir is None:
            postgres.remove()

    stack.push_async_callback(end)
    url = await postgres.start()
    return url, postgres.home


def _settings(options: DevOptions, folder: Path, url: str) -> Settings:
    """Return settings that only the command line decides: no file, no environment, loopback alone."""
    state = private_folder(folder / "state")
    return Settings.model_construct(
        role="head",
        node="dev",
        state_dir=state,
        run_dir=folder / "run",
        database_url=SecretStr(url),
        cluster_key_file=secret_file(state / "cluster.key"),
        http=HttpSettings(host=_LOOPBACK, port=options.port),
        tls=TlsSettings(host=_LOOPBACK, port=options.tls_port),
        agents=AgentSettings(host=_LOOPBACK, port=options.agent_port),
        serve=ServeSettings(host=_LOOPBACK, port=options.serve_port),
        metrics=MetricsSettings(host=_LOOPBACK, port=options.metrics_port),
        outbound=OutboundSettings(allowed_networks=options.allowed_networks),
        ray=RaySettings(port=0, dashboard_port=_DASHBOARD if options.serve_port else 0),
    )


async def _start(
    options: DevOptions, settings: Settings, stack: AsyncExitStack, stop: Stop
) -> tuple[NodeSettings, Callable[[], Awaitable[str]]]:
    """Start the node; return its settings and what waits for its failure."""
    if not options.single_process:
        node, ray_node = await start_node(settings, stack, stop, dev=True)
        return node, ray_node.ended
    claims = Claims()
    stack.callback(claims.release)
    node = resolve(settings, claims, dev=True, with_ray=False)
    await prepare_database(node.database_url, dev=True)
    await _start_in_this_process(node, stack)
    await wait_until_ready(node, lambda: None)

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    return node, never


async def _start_in_this_process(node: NodeSettings, stack: AsyncExitStack) -> None:
    from actors.local import LocalTree
    from serve.heap import settle
    from serve.wiring import Process

    tree = LocalTree(node)
    stack.push_async_callback(tree.stop)
    await tree.start()
    process = Process(node, tree.handles, ("gateway", "agents"), "single")
    stack.push_async_callback(process.stop)
    await process.start()
    stack.push_async_callback(tree.workplace.take_back)
    await tree.workplace.lend(process.core)
    settle()
