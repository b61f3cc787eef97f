"""One child process, tied to the life of this one.

The kernel sends the child its death signal when this process ends, however it ends: ``kill -9``
leaves nothing behind. A child that was asked to stop and does not is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The user a child runs as.

    Attributes:
        name: for messages.
        uid: numeric user id.
        gid: numeric group id; the child has no other groups.
    """

    name: str
    uid: int
    gid: int


class Child:
    """A process started and awaited by a thread of its own.

    The death signal belongs to the thread that forks, so that thread must last as long as the child:
    it is the one that waits for it.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        account: Account | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Describe the child; nothing runs before :meth:`start`.

        Args:
            arguments: program (an absolute path) and its arguments.
            environment: the whole environment; nothing is inherited.
            directory: working directory.
            log: file that standard output and error are appended to, created 0600.
            account: user to run as; None keeps the present one.
            death_signal: what the kernel sends when this process ends.
            keep_open: descriptors the child inherits.
        """
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._directory = directory
        self._log = log
        self._account = account
        self._death_signal = death_signal
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self._started: Future[None] = Future()
        self._ended: Future[int] = Future()

    @property
    def pid(self) -> int:
        """Process id of the started child."""
        if self._process is None:
            raise RuntimeError("the child was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._process is not None and not self._ended.done()

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal, or None while it runs."""
        return self._ended.result() if self._ended.done() else None

    def start(self) -> int:
        """Start the child and return its process id.

        Raises:
            OSError: it could not be started.
        """
        name = f"child-{Path(self._arguments[0]).name}"
        threading.Thread(target=self._keep, name=name, daemon=True).start()
        self._started.result()
        return self.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a child that has ended meanwhile is no error."""
        if self._process is not None and not self._ended.done():
            self._process.send_signal(number)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the child and tell whether it came within ``timeout`` seconds."""
        end = asyncio.shield(asyncio.wrap_future(self._ended))
        try:
            await asyncio.wait_for(end, timeout)
        except TimeoutError:
            return False
        return True

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal and wait its seconds until the child has ended; at last kill it."""
        for number, seconds in steps:
            self.send(number)
            if await self.wait(seconds):
                return
        self.send(signal.SIGKILL)
        await self.wait()

    def _keep(self) -> None:
        account = self._account or Account(name="", uid=os.geteuid(), gid=os.getegid())
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
        identity = [str(int(self._death_signal)), str(account.uid), str(account.gid)]
        try:
            descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - no shell; our own arguments
                    launcher + identity + self._arguments,
                    env=self._environment,
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=self._keep_open,
                )
        except OSError as exc:
            self._started.set_exception(exc)
            return
        self._started.set_result(None)
        self._ended.set_result(self._process.wait())
