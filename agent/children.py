"""Children of the agent: without a shell, without the agent's own variables, bounded in time and output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from secrethub.errors import Unavailable

_OWN_VARIABLES = ("SECRETHUB_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
_CHUNK = 65_536
_LAST_WORDS = 0.5
"""Seconds for what a child has printed to arrive once it has ended: its own children may hold the pipe."""


class OutOfTime(Unavailable):
    """A child did not end in time and was killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a child ended. What it printed may hold secrets."""

    code: int
    out: bytes = field(repr=False)
    err: bytes = field(repr=False)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a child may see: none of the agent's own."""
    return {key: value for key, value in environment.items() if not key.startswith(_OWN_VARIABLES)}


async def run(
    argv: Sequence[str], timeout: float, *, told: bytes | None = None, out: int = 0, err: int = 0
) -> Ended:
    """Run a child to its end. It and its children are killed when that takes too long, or on cancellation.

    Args:
        argv: program and arguments.
        timeout: seconds.
        told: what it reads on its standard input; None for nothing.
        out: bytes of its standard output that are kept.
        err: bytes of its standard error that are kept.

    Raises:
        OutOfTime: it did not end in time.
        Unavailable: it could not be started.
    """
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=null if told is None else pipe,
            stdout=pipe if out else null,
            stderr=pipe if err else null,
            env=child_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
    except OSError as exc:
        raise Unavailable(f"{argv[0]} cannot be run: {exc.strerror}") from exc
    kept = (bytearray(), bytearray())
    talking = [
        asyncio.create_task(_feed(process.stdin, told), name="child-stdin"),
        asyncio.create_task(_keep(process.stdout, kept[0], out), name="child-stdout"),
        asyncio.create_task(_keep(process.stderr, kept[1], err), name="child-stderr"),
    ]
    try:
        async with asyncio.timeout(timeout):
            code = await process.wait()
        await asyncio.wait(talking, timeout=_LAST_WORDS)
    except TimeoutError as exc:
        raise OutOfTime(f"{argv[0]} did not end within {timeout:g} seconds") from exc
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    return Ended(code=code, out=bytes(kept[0]), err=bytes(kept[1]))


async def _feed(writer: asyncio.StreamWriter | None, told: bytes | None) -> None:
    if writer is None or told is None:
        return
    with contextlib.suppress(ConnectionError):  # it need not read what it is told
        writer.write(told)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def _keep(reader: asyncio.StreamReader | None, kept: bytearray, most: int) -> None:
    """Keep the beginning, and read the rest so that the child is not held up."""
    while reader is not None and (chunk := await reader.read(_CHUNK)):
        kept += chunk[: most - len(kept)]
