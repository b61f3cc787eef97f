"""What agents are shown of the ledger, and what they have seen of it: when, and whom Core listens to."""

from __future__ import annotations

from test_agent_session import Agent, Hall, hall

from secrethub.wire import messages as wire
from secrethub.wire.close_codes import CloseCode

__all__ = ["hall"]

ONE, TWO = (wire.Checkpoint(signed=text, public=bytes(32)) for text in (b"one", b"two"))


def pass_time(hall: Hall, agent: Agent, seconds: float) -> None:
    """Let time pass for an agent that has something to say all the time."""
    hall.clock.passed += seconds
    agent.session.hear()
    hall.pass_time(agent, 0)


async def settled(agent: Agent) -> list[bytes]:
    """Let the session do its work and return what was shown."""
    await agent.say(wire.Watch(id=1, paths=("secrets/a",)))
    shown = []
    while not isinstance(message := agent.protocol.receive(await agent.frames.get()), wire.Watching):
        assert isinstance(message, wire.Checkpoint)
        shown.append(message.signed)
    return shown


async def test_the_newest_checkpoint_is_shown_now_and_then(hall: Hall) -> None:
    """An agent is shown it when it comes, a newer one within a minute, and none twice."""
    hall.house.newest = ONE
    agent = await hall.welcome()
    assert await agent.hear(wire.Checkpoint) == ONE
    pass_time(hall, agent, 60)
    assert await settled(agent) == []
    hall.house.newest = TWO
    pass_time(hall, agent, 29)
    assert await settled(agent) == []
    pass_time(hall, agent, 31)
    assert await agent.hear(wire.Checkpoint) == TWO


async def test_many_agents_are_not_shown_it_together(hall: Hall) -> None:
    """Agents that came together are shown it at different times."""
    hall.house.newest = ONE
    agents = [await hall.welcome(f"agent-{number}") for number in range(20)]
    for agent in agents:
        assert await agent.hear(wire.Checkpoint) == ONE
    hall.house.newest = TWO
    hall.clock.passed += 45
    for agent in agents:
        pass_time(hall, agent, 0)
    told = [await settled(agent) for agent in agents]
    assert [] in told
    assert [b"two"] in told


async def test_a_process_that_has_seen_none_yet(hall: Hall) -> None:
    """An agent that comes while there is nothing to show is shown it a little later, or in its time."""
    agents = [await hall.welcome(f"agent-{number}") for number in range(2)]
    assert [await settled(agent) for agent in agents] == [[], []]
    pass_time(hall, agents[0], 3)
    assert await settled(agents[0]) == []
    hall.house.newest = ONE
    pass_time(hall, agents[0], 3)
    assert await settled(agents[0]) == []
    pass_time(hall, agents[1], 0)
    assert await agents[1].hear(wire.Checkpoint) == ONE
    pass_time(hall, agents[0], 57)
    assert await agents[0].hear(wire.Checkpoint) == ONE


async def test_an_agent_that_has_seen_more_is_heard(hall: Hall) -> None:
    """What hello has is handed on, also of one that is not let in; less is not shown to it at once."""
    hall.house.newest = ONE
    agent = hall.connect()
    await agent.say(wire.Hello(version="0", name="n", witness=b"seen"))
    await agent.hear(wire.Welcome)
    assert await settled(agent) == []
    pass_time(hall, agent, 3)
    assert await agent.hear(wire.Checkpoint) == ONE
    hall.house.revoked.add("agent-2")
    other = hall.connect("agent-2")
    await other.say(wire.Hello(version="0", name="n", witness=b"also"))
    assert (await other.closed)[0] == CloseCode.REVOKED
    assert hall.house.heard == [b"seen", b"also"]
