"""Running a command until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import uvloop


def ending() -> tuple[signal.Signals, ...]:
    """Return the signals that ask this process to end, before it has taken any of them.

    A closed terminal (SIGHUP) is an orderly end, too, unless ``nohup`` has said otherwise.
    """
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hangs_up else ()))


class Stop:
    """Signals that ask for the end cancel the work, once; its clean-up is not disturbed again."""

    def __init__(self, task: asyncio.Task[int]) -> None:
        self._task = task
        self._signals = ending()
        self.asked = False

    def listen(self) -> None:
        """Take the signals; again after a library has taken them for itself."""
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self._ask)

    def _ask(self) -> None:
        if not self.asked:
            self.asked = True
            self._task.cancel()


def run_until_stopped(work: Callable[[Stop], Awaitable[int]]) -> int:
    """Run ``work`` in a fresh event loop.

    Args:
        work: gets the :class:`Stop`; cancelled by a signal, it cleans up.

    Returns:
        Its exit code; 0 when it was told to stop.
    """

    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        stop = Stop(task)
        stop.listen()
        try:
            return await work(stop)
        except asyncio.CancelledError:
            if stop.asked:
                return 0
            raise

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
