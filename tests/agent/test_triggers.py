"""Telling a program that its file changed: whom a signal may reach, what a command sees."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import children
from agent.settings import CommandReload, HttpReload, SignalReload
from agent.triggers import ReloadFailed, fire

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs processes of other users")
OTHER = 12_345

LISTENER = "trap 'echo told; exit 0' HUP; echo ready; while :; do sleep 0.05; done"
"""For the shell, because every user may run it."""


class Program:
    """A program that says when it was told."""

    def __init__(self, uid: int | None = None) -> None:
        self.process = subprocess.Popen(
            ["sh", "-c", LISTENER], stdout=subprocess.PIPE, text=True, user=uid, group=uid
        )
        assert self.line() == "ready"

    def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    @property
    def running(self) -> bool:
        """Whether it was not told, which ends it."""
        return self.process.poll() is None

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def program() -> Iterator[Program]:
    """A program of this user."""
    started = Program()
    yield started
    started.end()


def hup(pid_file: Path) -> SignalReload:
    """Return a reload by a pid file."""
    return SignalReload(signal=signal.SIGHUP, pid_file=pid_file)


async def test_a_pid_file_tells_its_process(program: Program, place: Path) -> None:
    """The signal arrives at the process whose number is in the file."""
    (place / "app.pid").write_text(f"{program.process.pid}\n")
    await fire(hup(place / "app.pid"), os.geteuid())
    assert program.line() == "told"


@pytest.mark.parametrize("content", ["", "abc", "0", "1", "-5", "12 34", "9" * 20, "9" * 70, "٣"])
async def test_what_is_no_process_id_is_refused(place: Path, content: str) -> None:
    """Only the number of one process other than init is taken from a pid file."""
    (place / "app.pid").write_text(content)
    with pytest.raises(ReloadFailed):
        await fire(hup(place / "app.pid"), os.geteuid())


async def test_a_missing_pid_file_and_an_ended_process_are_said(program: Program, place: Path) -> None:
    """Neither is an accident: the message says what is missing."""
    with pytest.raises(ReloadFailed, match="no pid file"):
        await fire(hup(place / "app.pid"), os.geteuid())
    (place / "app.pid").write_text(str(program.process.pid))
    program.end()
    with pytest.raises(ReloadFailed, match="no process"):
        await fire(hup(place / "app.pid"), os.geteuid())


async def test_a_symlink_is_not_followed_to_a_pid_file(program: Program, place: Path) -> None:
    """A symlink in place of the pid file, or on the way to it, is refused."""
    (place / "real").mkdir()
    (place / "real" / "app.pid").write_text(str(program.process.pid))
    (place / "app.pid").symlink_to("real/app.pid")
    (place / "link").symlink_to("real")
    for path in (place / "app.pid", place / "link" / "app.pid"):
        with pytest.raises(ReloadFailed, match="symbolic link"):
            await fire(hup(path), os.geteuid())
    assert program.running


async def test_a_stale_pid_file_does_not_reach_a_stranger(program: Program, place: Path) -> None:
    """A process that began after the file was written is another one with the same number."""
    (place / "app.pid").write_text(str(program.process.pid))
    an_hour_ago = time.time() - 3600
    os.utime(place / "app.pid", (an_hour_ago, an_hour_ago))
    with pytest.raises(ReloadFailed, match="stale"):
        await fire(hup(place / "app.pid"), os.geteuid())
    assert program.running


async def test_a_pid_file_that_everybody_may_write_is_refused(program: Program, place: Path) -> None:
    """Whoever can write the file could choose whom root signals."""
    (place / "app.pid").write_text(str(program.process.pid))
    (place / "app.pid").chmod(0o666)
    with pytest.raises(ReloadFailed, match="written by everybody"):
        await fire(hup(place / "app.pid"), os.geteuid())
    assert program.running


@as_root
async def test_a_users_pid_file_reaches_only_the_users_process(place: Path) -> None:
    """The owner of a file can have his own process signalled, and no other, least of all root's."""
    own, roots = Program(OTHER), Program()
    try:
        os.chown(place, OTHER, OTHER)
        pid_file = place / "app.pid"
        pid_file.write_text(str(roots.process.pid))
        os.chown(pid_file, OTHER, OTHER)
        with pytest.raises(ReloadFailed, match="another user"):
            await fire(hup(pid_file), OTHER)
        assert roots.running
        pid_file.write_text(str(own.process.pid))
        await fire(hup(pid_file), OTHER)
        assert own.line() == "told"
    finally:
        own.end()
        roots.end()


@as_root
async def test_a_strangers_pid_file_is_not_believed(program: Program, place: Path) -> None:
    """A pid file must belong to root or to the file's owner."""
    (place / "app.pid").write_text(str(program.process.pid))
    os.chown(place / "app.pid", OTHER, OTHER)
    with pytest.raises(ReloadFailed, match=f"uid {OTHER}"):
        await fire(hup(place / "app.pid"), 0)
    assert program.running


@as_root
async def test_what_only_root_can_write_may_name_anybodys_process(place: Path) -> None:
    """A root-owned pid file in root's folder reaches the program whatever user it changed to."""
    third = Program(OTHER + 1)
    try:
        (place / "app.pid").write_text(str(third.process.pid))
        await fire(hup(place / "app.pid"), 0)
        assert third.line() == "told"
    finally:
        third.end()


@as_root
@pytest.mark.parametrize("weak", ["folder", "above", "file"])
async def test_what_others_may_write_reaches_root_and_the_owner_only(place: Path, weak: str) -> None:
    """Where somebody but root could have put the file, it may not name a third user's process."""
    third = Program(OTHER + 1)
    try:
        folder = place / "run"
        folder.mkdir()
        (folder / "app.pid").write_text(str(third.process.pid))
        {"folder": folder, "above": place, "file": folder / "app.pid"}[weak].chmod(0o770)
        with pytest.raises(ReloadFailed, match=f"another user .uid {OTHER + 1}"):
            await fire(hup(folder / "app.pid"), OTHER)
        assert third.running
    finally:
        third.end()


async def test_a_pid_file_with_two_names_is_refused(program: Program, place: Path) -> None:
    """A hard link could be a file of root's that says another number than it should here."""
    (place / "app.pid").write_text(str(program.process.pid))
    (place / "other.pid").hardlink_to(place / "app.pid")
    with pytest.raises(ReloadFailed, match="hard link"):
        await fire(hup(place / "app.pid"), os.geteuid())
    assert program.running


async def test_a_command_runs_without_a_shell_and_without_our_variables(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments arrive as they are; nothing of the agent's environment does."""
    monkeypatch.setenv("SECRETHUB_SECRET_ID", "canary")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("LANG", "C")
    out = place / "out"
    program = "import json, os, sys; json.dump([sys.argv[2:], dict(os.environ)], open(sys.argv[1], 'w'))"
    argv = (sys.executable, "-c", program, str(out), "$HOME; echo `id`", "*")
    await fire(CommandReload(argv=argv), 0)
    text = out.read_text()
    assert '["$HOME; echo `id`", "*"]' in text
    assert '"LANG": "C"' in text
    assert "SECRETHUB" not in text
    assert "NOTIFY_SOCKET" not in text


async def test_a_failing_command_tells_its_exit_code_and_nothing_else() -> None:
    """What a command prints could quote the file, so it is not repeated."""
    argv = ("sh", "-c", "echo canary; echo canary >&2; exit 3")
    with pytest.raises(ReloadFailed) as caught:
        await fire(CommandReload(argv=argv), 0)
    assert str(caught.value) == "sh ended with 3"


async def test_a_missing_command_is_said() -> None:
    """A command that does not exist is named."""
    with pytest.raises(ReloadFailed, match="no-such-command"):
        await fire(CommandReload(argv=("no-such-command",)), 0)


async def test_a_command_that_does_not_end_is_killed_with_its_children(place: Path) -> None:
    """When its time is over, the command and what it started are gone."""
    pids = place / "pids"
    script = f"sleep 1000 & echo $! $$ > {pids}; wait"
    with pytest.raises(ReloadFailed, match="within 1 seconds"):
        await fire(CommandReload(argv=("sh", "-c", script), timeout=1), 0)
    for pid in map(int, pids.read_text().split()):
        async with asyncio.timeout(10):
            while _alive(pid):  # noqa: ASYNC110 - a stranger's end sets no event here
                await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("status", [200, 204, 500, 302])
async def test_a_hook_is_posted_to(status: int) -> None:
    """A 2xx answer is success; anything else, a redirect too, is not, and is not followed."""
    requests = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[0])
        writer.write(f"HTTP/1.1 {status} X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        hook = HttpReload(
            url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/-/reload?x=1", timeout=5
        )
        if status < 300:
            await fire(hook, 0)
        else:
            with pytest.raises(ReloadFailed, match=str(status)):
                await fire(hook, 0)
    assert requests == [b"POST /-/reload?x=1 HTTP/1.1"]


async def test_a_dead_hook_is_said() -> None:
    """Nobody listening is an error with the address."""
    with pytest.raises(ReloadFailed, match=r"127\.0\.0\.1:9"):
        await fire(HttpReload(url="http://127.0.0.1:9/"), 0)


async def test_a_unit_without_a_process_is_said() -> None:
    """A systemd unit that does not run, or a host without systemd, is an error, not a guess."""
    with pytest.raises(ReloadFailed):
        await fire(SignalReload(signal=signal.SIGHUP, unit="no-such-unit.service"), 0)


def test_children_see_no_variable_of_ours() -> None:
    """Everything that begins with SECRETHUB_ stays here, and so does what systemd told us."""
    given = {"SECRETHUB_ROLE_ID": "a", "PATH": "/bin", "LISTEN_FDS": "1", "HOME": "/root"}
    assert children.child_environment(given) == {"PATH": "/bin", "HOME": "/root"}
