"""Commands that rotations have run on this host: which, and what they are, the host's own settings say.

Core names a command and a step of a run; values come with it and go to the command's standard input, never
to its arguments or its environment. A step that was begun when the agent died is asked for again, with the
same id and the same values.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from agent import children
from agent.backoff import Backoff
from agent.outcomes import PASSING
from agent.settings import CommandSettings
from secrethub.errors import SecretHubError, Unavailable
from secrethub.wire import messages as wire
from secrethub.wire.fields import OrderOutcome
from secrethub.wire.said import without

A = TypeVar("A", bound=wire.CoreMessage)

MOST = 8
"""Commands that run side by side."""
LATER = 75
"""Exit code that asks to be called again: EX_TEMPFAIL of sysexits(3)."""

_KEPT = 16_384
"""Bytes of what a command says that are looked at."""

_log = logging.getLogger(__name__)


class Asking(Protocol):
    """The way to Core."""

    async def ask(self, build: Any, answer: type[A]) -> A:
        """Ask, and return the answer.

        Raises:
            SecretHubError: what Core answered instead; Unavailable when it did not.
        """
        ...


class Orders:
    """What this host is to do, and is doing."""

    def __init__(self, core: Asking, commands: Iterable[CommandSettings]) -> None:
        """Prepare.

        Args:
            core: to be asked.
            commands: those that there are.
        """
        self._core = core
        self._commands: Mapping[str, CommandSettings] = {command.name: command for command in commands}
        self._held: set[str] = set()
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """There may be something to do: Core says so, or was away."""
        self._stirred.set()

    async def run(self) -> None:
        """Take orders and carry them out until cancelled; what runs then is killed, and ordered again."""
        backoff = Backoff()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._stirred.wait()
                self._stirred.clear()
                try:
                    while len(self._held) < MOST and (order := await self._take()) is not None:
                        self._held.add(order.order)
                        group.create_task(self._carry_out(order), name=f"order:{order.command}")
                    backoff.reset()
                except SecretHubError as exc:
                    _log.warning("what is to be run could not be asked for", extra={"error": str(exc)})
                    await asyncio.sleep(backoff.next())
                    self._stirred.set()

    async def _take(self) -> wire.Order | None:
        held = tuple(self._held)
        answer = await self._core.ask(lambda number: wire.TakeOrder(id=number, held=held), wire.Ordered)
        return answer.order

    async def _carry_out(self, order: wire.Order) -> None:
        try:
            outcome, said = await execute(self._commands.get(order.command), order)
            extra = {"command": order.command, "order": order.order, "step": order.step, "outcome": outcome}
            _log.log(logging.INFO if outcome == "done" else logging.WARNING, "command ended", extra=extra)
            await self._tell(order, outcome, said)
        finally:
            self._held.discard(order.order)
            self.stir()

    async def _tell(self, order: wire.Order, outcome: OrderOutcome, said: str) -> None:
        """Tell Core until it has heard of it, or does not want to know any more."""
        backoff = Backoff()
        while True:
            try:
                await self._core.ask(
                    lambda number: wire.AnswerOrder(
                        id=number,
                        order=order.order,
                        step=order.step,
                        attempt=order.attempt,
                        outcome=outcome,
                        said=said,
                    ),
                    wire.Noted,
                )
            except PASSING as exc:
                _log.info("Core was not told of a command yet", extra={"error": str(exc)})
                await asyncio.sleep(backoff.next())
            except SecretHubError as exc:
                _log.warning("Core does not want to know of a command", extra={"error": str(exc)})
                return
            else:
                return


async def execute(command: CommandSettings | None, order: wire.Order) -> tuple[OrderOutcome, str]:
    """Carry an order out; return how that ended, and why, without its values."""
    if command is None:
        return "unknown", "there is no such command in agent.toml"
    told = told_of(order)
    values = (order.value, order.old_value)
    try:
        ended = await children.run(
            (*command.argv, order.step, order.order), command.timeout, told=told, err=_KEPT
        )
    except children.OutOfTime:
        return "failed", f"it did not end within {command.timeout} seconds"
    except Unavailable as exc:
        return "failed", exc.message
    if ended.code == 0:
        return "done", ""
    words = ended.err
    if len(words) == _KEPT:
        # A value may have been cut at the end, and could not be told from anything else.
        words = words[: -min(_KEPT, 2 * len(told))]
    how = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code}"
    said = without(words.decode("utf-8", "replace"), values)
    return ("again" if ended.code == LATER else "failed"), f"{how}: {said}" if said else how


def told_of(order: wire.Order) -> bytes:
    """Return what the command reads: a JSON object with no more values than the step is about."""
    told: dict[str, Any] = {
        "id": order.order,
        "step": order.step,
        "path": order.path,
        "field": order.field,
    }
    if order.step != "retire":
        told["value"] = order.value
    if order.step in {"retire", "undo"}:
        told["old_value"] = order.old_value
    return json.dumps(told).encode()
