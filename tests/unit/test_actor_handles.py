"""Handles give domain errors as themselves, everything else as Unavailable, and find successors."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from actors.handles import LocalHandles
from actors.restart import ChildSpec, Rules
from actors.tree import SEAL_STATE, SUPERVISOR, Branch, actor_name, nodes_of
from secrethub.errors import Sealed, Unavailable, WrongShare


class Greeter:
    """An actor of the test's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entered = asyncio.Event()

    async def greet(self, whom: str) -> str:
        """Answer."""
        return f"{self.name} greets {whom}"

    async def refuse(self) -> None:
        """Refuse as our actors do."""
        raise WrongShare("not yours", "unknown")

    async def fail(self) -> None:
        """Fail as a defect does."""
        raise KeyError("a secret")

    async def sleep(self) -> str:
        """Answer only if this is the second of its kind."""
        self.entered.set()
        if self.name == "first":
            await asyncio.Event().wait()
        return self.name


@pytest.fixture
async def handles() -> LocalHandles:
    """Handles with one actor in the place of SealState."""
    handles = LocalHandles("n1")
    await handles.enter(SEAL_STATE, Greeter("first"))
    return handles


async def test_results_and_our_errors_come_out_as_themselves(handles: LocalHandles) -> None:
    """A result is returned; one of our errors is raised with its fields."""
    assert await handles.seal_state().call("greet", "you") == "first greets you"
    with pytest.raises(WrongShare) as refused:
        await handles.seal_state().call("refuse")
    assert refused.value.reason == "unknown"


async def test_a_defect_is_unavailable_and_tells_nothing(handles: LocalHandles) -> None:
    """Any other exception of an actor becomes Unavailable without its text."""
    with pytest.raises(Unavailable) as failed:
        await handles.seal_state().call("fail")
    assert "secret" not in str(failed.value)


async def test_waiting_has_an_end(handles: LocalHandles) -> None:
    """An actor that does not answer, or does not exist, is Unavailable when the time is over."""
    with pytest.raises(Unavailable):
        await handles.seal_state().call("sleep", timeout=0.05)
    with pytest.raises(Unavailable):
        await handles.lock().call("acquire", timeout=0.05)


async def test_a_call_outlives_its_actor(handles: LocalHandles) -> None:
    """A call whose actor ends meanwhile is answered by the successor."""
    first = await handles.find(SEAL_STATE)
    assert isinstance(first, Greeter)
    call = asyncio.create_task(handles.seal_state().call("sleep"))
    await first.entered.wait()
    await handles.leave(SEAL_STATE, first)
    await handles.enter(SEAL_STATE, Greeter("second"))
    assert await call == "second"


async def test_a_cancelled_caller_is_cancelled(handles: LocalHandles) -> None:
    """A caller that gives up is not kept by the retry."""
    first = await handles.find(SEAL_STATE)
    assert isinstance(first, Greeter)
    call = asyncio.create_task(handles.seal_state().call("sleep"))
    await first.entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_predecessor_cannot_take_the_name_away(handles: LocalHandles) -> None:
    """An actor that leaves late does not free the name of its successor."""
    first = await handles.find(SEAL_STATE)
    second = Greeter("second")
    await handles.enter(SEAL_STATE, second)
    await handles.leave(SEAL_STATE, first)
    assert await handles.find(SEAL_STATE) is second


async def test_nodes_are_those_with_a_key_holder() -> None:
    """The live nodes are read off the names of the key-holders."""
    handles = LocalHandles("n1")
    for name in ("key-holder@n2", "key-holder@n1", "seal-state", "node-supervisor@n3"):
        await handles.enter(name, object())
    assert await handles.live_nodes() == ["n1", "n2"]
    assert nodes_of(["key-holder@a@b"], "key-holder") == ["a@b"]
    assert actor_name("key-holder", "n1") == "key-holder@n1"


def test_serving_processes_import_neither_ray_nor_actor_classes() -> None:
    """Importing the handles loads no actor class and no Ray."""
    script = (
        "import sys, actors.handles\n"
        "loaded = {'ray', 'actors.seal_state', 'actors.key_holder', 'actors.remote'} & set(sys.modules)\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tree_is_well_formed() -> None:
    """A branch with repeated orders or names cannot be written down."""
    assert [child.name for child in SUPERVISOR.children] == [
        "seal-state",
        "distributed-lock",
        "session-directory",
        "audit-notary",
    ]
    for children in (
        (ChildSpec(name="a", order=1), ChildSpec(name="b", order=1)),
        (ChildSpec(name="a", order=1), ChildSpec(name="a", order=2)),
        (ChildSpec(name="a", order=2), ChildSpec(name="b", order=1)),
    ):
        with pytest.raises(ValueError, match="distinct names"):
            Branch(name="x", rules=Rules(), children=children)


async def test_sealed_is_an_error_of_ours() -> None:
    """An actor that is sealed says so, and the caller hears exactly that."""

    class Shut:
        async def root(self) -> bytes:
            raise Sealed

    handles = LocalHandles("n1")
    await handles.enter(SEAL_STATE, Shut())
    with pytest.raises(Sealed):
        await handles.seal_state().call("root")
