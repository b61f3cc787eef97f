"""The supervisor of one embedded PostgreSQL server.

Promises: one server per data directory; reachable only through a socket in a private folder, with
SCRAM authentication and page checksums; never as root; ends with this process, however that ends,
by a fast but clean shutdown.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import asyncpg

from cluster.children.child import Child
from cluster.folders import sync, write_private
from cluster.locks import Lock
from cluster.postgres import directory
from cluster.postgres.account import reaches
from cluster.postgres.binaries import Binaries, choose, copy_to
from cluster.postgres.directory import Home
from cluster.postgres.wal import KEPT_MIB, make_ahead
from secrethub.errors import Conflict, Misconfigured, Unavailable

DATABASE = "secrethub"
_USER = "secrethub"
_READY_LINE = 7
"""Line of ``postmaster.pid``, counted from 0, that says ``ready``."""
_SCRAM_ITERATIONS_SINCE = 16
"""The first release that has the setting."""
_SHUTDOWN_PATIENCE = 60.0
"""Seconds a server whose parent was killed may take for its last checkpoint."""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedPostgres:
    """A PostgreSQL server that belongs to this process."""

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        fallback: Path = directory.FALLBACK,
        settle: float = 5.0,
    ) -> None:
        """Describe the server; nothing is touched before :meth:`start`.

        Args:
            data_dir: folder of the server, made if missing; data survives restarts here.
            durable: False trades the data's survival of a power cut for speed, for tests. What was
                committed survives the end of the server either way.
            fallback: where the data is if the server's user cannot come to ``data_dir``.
            settle: seconds after the start until write-ahead log is made beforehand, where it is durable.
        """
        self._root = data_dir.absolute()
        self._durable = durable
        self._fallback = fallback
        self._settle = settle
        self._home: Home | None = None
        self._child: Child | None = None
        self._locks: list[Lock] = []
        self._wal: asyncio.Task[None] | None = None

    @property
    def home(self) -> Path:
        """Where the data really is: ``data_dir``, or below ``/var/lib/secrethub`` (see ``directory``)."""
        if self._home is None:
            raise RuntimeError("the server was not started")
        return self._home.folder

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._child is None:
            raise RuntimeError("the server is not running")
        return self._child.pid

    async def start(self) -> str:
        """Start the server and return the URL of its database.

        Returns:
            ``postgresql://…?host=<socket folder>``. It holds the password.

        Raises:
            Conflict: another process runs a server on this folder.
            Misconfigured: no usable PostgreSQL, user or folder.
            Unavailable: the server did not come up; the message ends with its log.
        """
        if self._child is not None:
            raise Conflict("this server is already running")
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Shut the server down cleanly. Safe to call twice."""
        if self._wal is not None and not self._wal.done():
            self._wal.cancel()
            await asyncio.wait([self._wal])
        child, self._child = self._child, None
        if child is not None and child.running:
            await child.stop((signal.SIGINT, _SHUTDOWN_PATIENCE), (signal.SIGQUIT, 5.0))
        for lock in self._locks:
            lock.close()
        self._locks.clear()

    def remove(self) -> None:
        """Remove a stopped server's data for good.

        Raises:
            Conflict: it is still running.
        """
        if self._child is not None:
            raise Conflict("stop the server before its data is removed")
        directory.remove(self._root)

    async def _start(self) -> str:
        home = self._home = await asyncio.to_thread(directory.prepare, self._root, self._fallback)
        alone = self._lock("owner.lock")
        alone.take(patience=0, otherwise=f"another process runs the PostgreSQL server in {self._root}")
        gone = self._lock("server.lock")
        await asyncio.to_thread(
            gone.take,
            patience=_SHUTDOWN_PATIENCE,
            otherwise=f"a PostgreSQL server in {self._root} is still shutting down",
        )
        binaries = await asyncio.to_thread(_usable_binaries, home)
        if home.major is None:
            await asyncio.to_thread(_initialise, home, binaries)
        _remove_stale_pid_file(home)
        sockets = directory.make_socket_folder(home)
        if home.log.exists():
            home.log.replace(home.log.with_suffix(".old"))
        child = self._child = Child(
            [
                str(binaries.postgres),
                *("-D", str(home.data)),
                *_options(sockets, binaries, durable=self._durable),
            ],
            environment=_ENVIRONMENT,
            directory=home.data,
            log=home.log,
            account=home.account,
            death_signal=signal.SIGINT,
            keep_open=[gone.descriptor],
        )
        await asyncio.to_thread(child.start)
        await _until_ready(child, home)
        await _ensure_database(_url(home, sockets, "postgres"))
        url = _url(home, sockets, DATABASE)
        if self._durable:
            ahead = make_ahead(url, home.data, after=self._settle)
            self._wal = asyncio.create_task(ahead, name="write-ahead-log")
        return url

    def _lock(self, name: str) -> Lock:
        lock = Lock(self._root / name)
        self._locks.append(lock)
        return lock


def _usable_binaries(home: Home) -> Binaries:
    """Choose programs that the server's user can execute; the wheel's are copied if need be."""
    fitting = choose(home.major)
    for binaries in fitting:
        if reaches(home.account, binaries.folder):
            return binaries
    copied = copy_to(fitting[0], home.programs)
    if not reaches(home.account, copied.folder):
        user = home.account.name if home.account else "the present user"
        raise Misconfigured(f"user {user} cannot traverse to PostgreSQL's programs in {copied.folder}")
    return copied


def _initialise(home: Home, binaries: Binaries) -> None:
    fresh = home.folder / "data.new"
    handed_over = home.folder / "password.new"
    shutil.rmtree(fresh, ignore_errors=True)
    handed_over.unlink(missing_ok=True)
    password = secrets.token_urlsafe(32)
    write_private(home.password, password)
    fresh.mkdir(mode=0o700)
    directory.give(fresh, home.account)
    # initdb runs as the server's user, who cannot read our copy.
    write_private(handed_over, password)
    directory.give(handed_over, home.account)
    account = home.account
    try:
        result = subprocess.run(  # noqa: S603 - no shell; our own arguments
            [
                str(binaries.initdb),
                f"--pgdata={fresh}",
                f"--username={_USER}",
                f"--pwfile={handed_over}",
                "--auth=scram-sha-256",
                "--data-checksums",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                # They protect passwords that can be guessed. This one has 256 bits; each connection pays.
                *(["--set=scram_iterations=1"] if binaries.major >= _SCRAM_ITERATIONS_SINCE else []),
            ],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            env=_ENVIRONMENT,
            cwd=home.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        handed_over.unlink()
    if result.returncode != 0:
        raise Unavailable(f"initdb failed: {result.stdout.strip()[-2000:]}")
    fresh.rename(home.data)
    sync(home.folder)


def _remove_stale_pid_file(home: Home) -> None:
    """Remove the pid file of a server that is gone.

    PostgreSQL trusts any live process of that number and refuses to start, which after a reboot or in
    a fresh container may be anything. We hold the lock that every process of an earlier server had
    inherited, so only a server started by other hands could still be there: its working directory
    tells.
    """
    file = home.data / "postmaster.pid"
    if not file.exists():
        return
    number = file.read_text("utf-8").split("\n", 1)[0].strip().lstrip("-")
    try:
        there = Path(f"/proc/{number}/cwd").resolve(strict=True)
    except OSError:
        there = None
    if there == home.data.resolve():
        raise Conflict(f"process {number} runs PostgreSQL on {home.data}; it was not started by SecretHub")
    file.unlink()


def _options(sockets: Path, binaries: Binaries, *, durable: bool) -> list[str]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "max_connections": "200",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_statement": "none",
        "log_min_error_statement": "panic",
        "password_encryption": "scram-sha-256",
        "cluster_name": "secrethub",
    }
    if durable:
        settings["min_wal_size"] = f"{KEPT_MIB}MB"
    else:
        settings |= {"fsync": "off", "full_page_writes": "off"}
    if binaries.major >= _SCRAM_ITERATIONS_SINCE:
        # initdb has kept its own for later roles, whose passwords may be anybody's.
        settings["scram_iterations"] = "4096"
    return [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]


async def _until_ready(child: Child, home: Home) -> None:
    """Wait until the server accepts connections, as ``pg_ctl -w`` does; recovery may take its time."""
    file = home.data / "postmaster.pid"
    while True:
        lines = file.read_text("utf-8").split("\n") if file.exists() else []
        if len(lines) > _READY_LINE and lines[0] == str(child.pid) and lines[_READY_LINE].startswith("ready"):
            return
        if await child.wait(0.02):
            log = home.log.read_text("utf-8", errors="replace")[-2000:]
            raise Unavailable(f"PostgreSQL ended with exit code {child.exit_code}: {log.strip()}")


async def _ensure_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()


def _url(home: Home, sockets: Path, database: str) -> str:
    password = home.password.read_text("utf-8")
    return f"postgresql://{_USER}:{password}@/{database}?host={quote(str(sockets), safe='/')}"
