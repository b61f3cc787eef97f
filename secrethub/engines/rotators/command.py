"""A command on a host: an agent runs what its own settings have under a name, and is told each step.

Core names a command and never says what it is: that, and how long it may take, is for whoever runs the host.
A step is an order in the database (``storage/agent_orders.py``); the gateway that the agent is connected to
hands it over and takes the answer. Until then the step is awaited, for ``within`` at most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.clock import micros
from secrethub.engines.agents.records import agent_id_of, load
from secrethub.engines.rotators.generated import Shape
from secrethub.engines.rotators.rotator import Awaited, Plan, Refused, Setup
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.storage import agent_orders
from secrethub.storage.agent_orders import AgentOrder
from secrethub.wire.durations import parse_duration
from secrethub.wire.fields import OrderStep

KIND = "agent-command"
AGENT = "agent"
"""Note of a plan: id of the agent that the run is for."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_WITHIN = "5m"
_LONGEST = 24 * 3600


class CommandRotator:
    """Kind ``agent-command``."""

    kind = KIND
    options = frozenset({"agent", "command", "within", "field", "length", "charset"})
    secrets: frozenset[str] = frozenset()

    def check(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> None:  # noqa: ARG002
        """Check that there is an agent, a command and a time, and how values look."""
        Shape(options)
        self.needs(options)
        _within(options)

    def needs(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """The command of that agent: whoever may update that may have it run."""
        agent, command = options.get("agent", ""), options.get("command", "")
        if _NAME.fullmatch(agent) is None or _NAME.fullmatch(command) is None:
            raise InvalidRequest("agent is the name of an agent, and command that of one in its agent.toml")
        return (f"agents/{agent}/commands/{command}",)

    async def probe(self, setup: Setup, current: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Find out whether there is such an agent. It is not told of a dry run."""
        await _agent(setup)

    async def plan(
        self,
        setup: Setup,
        current: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Plan a new random value for the agent that has the name now."""
        agent = await _agent(setup)
        shape = Shape(setup.options)
        return {shape.field: shape.value()}, {AGENT: agent}

    async def create(self, setup: Setup, plan: Plan) -> Mapping[str, Any]:
        """Have ``create`` done with the new value."""
        await _carried_out(setup, plan, "create")
        return {}

    async def verify(self, setup: Setup, plan: Plan) -> None:
        """Have ``verify`` done with the new value."""
        await _carried_out(setup, plan, "verify")

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """Have ``retire`` done with the old value."""
        await _carried_out(setup, plan, "retire")

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Have ``undo`` done with both, unless the agent was never told of the new one."""
        core = setup.core
        async with core.database.write() as connection:
            created = await agent_orders.locked(
                connection, core.keyring(), setup.rotation, setup.run, "create"
            )
        if created is None or created.taken:
            await _carried_out(setup, plan, "undo")


async def _carried_out(setup: Setup, plan: Plan, step: OrderStep) -> None:
    """Return once the agent has done a step.

    Raises:
        Awaited: it has not yet.
        Unavailable: it could not do it for now.
        Refused: it did not do it, or not in time.
    """
    core, options = setup.core, setup.options
    now = micros(core.clock.now())
    within = _within(options)
    late = setup.waiting_since and now - setup.waiting_since >= within * 1_000_000
    found = await load(core, plan.notes[AGENT])
    gone = found is None or found[1].status != "active"
    async with core.database.write() as connection:
        keyring = core.keyring()
        order = await agent_orders.locked(connection, keyring, setup.rotation, setup.run, step)
        if order is None or order.attempt != setup.attempt:
            order = AgentOrder(
                rotation=setup.rotation,
                run=setup.run,
                step=step,
                attempt=setup.attempt,
                key=setup.key,
                agent=plan.notes[AGENT],
                taken=0 if order is None else order.taken,
            )
            await agent_orders.put(connection, keyring, order)
        if not order.outcome and (late or gone):
            # From here on nobody is given it, and no answer counts.
            order = msgspec.structs.replace(order, outcome="gone" if gone else "late")
            await agent_orders.put(connection, keyring, order)
    who = f"{options['command']} on {options['agent']}"
    match order.outcome:
        case "done":
            return
        case "":
            raise Awaited(f"{who} is awaited")
        case "again":
            raise Unavailable(f"{who} could not {step} for now: {order.said}")
        case "late":
            raise Refused(f"{who}: the agent was away or busy for {within} seconds, nobody knows of {step}")
        case "gone":
            raise Refused(f"{who}: the agent is revoked")
        case "denied":
            raise Refused(f"{who}: the agent itself may not read this secret")
        case _:
            raise Refused(f"{who} did not {step}: {order.said}")


async def _agent(setup: Setup) -> str:
    """Return the id of the agent that is configured.

    Raises:
        Refused: there is none, or it is revoked.
    """
    name = setup.options["agent"]
    agent_id = agent_id_of(setup.core, name)
    found = await load(setup.core, agent_id)
    if found is None or found[1].status != "active":
        raise Refused(f"there is no active agent {name}")
    return agent_id


def _within(options: Mapping[str, str]) -> int:
    seconds = parse_duration(options.get("within", _WITHIN))
    if not 1 <= seconds <= _LONGEST:
        raise InvalidRequest("within is a duration from one second to one day")
    return seconds
