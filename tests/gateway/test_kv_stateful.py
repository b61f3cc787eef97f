"""Key/value secrets over HTTP against a model: any sequence of operations, and any of them side by side."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.gateway.behind import ledger_is_good
from tests.gateway.conftest import Node
from tests.gateway.kv_model import METADATA, NEVER, Secret, Step, Store, done, shown

T = TypeVar("T")

_NAMES = st.sampled_from(["a", "a", "a", "a/b"])
_KEYS = st.sampled_from(["x", "y", "z"])
_LEAVES = (
    st.integers(0, 3)
    | st.text("äb\n", max_size=2)
    | st.booleans()
    | st.sampled_from([1.0, 0.5])
    | st.lists(st.integers(0, 1), max_size=2)
)
_VALUES = st.dictionaries(_KEYS, _LEAVES | st.dictionaries(_KEYS, _LEAVES, max_size=2), max_size=3)
_PATCHES = st.dictionaries(
    _KEYS, st.none() | _LEAVES | st.dictionaries(_KEYS, st.none() | _LEAVES, max_size=2), max_size=3
)
_SECONDS = st.sampled_from([0, 1000, 1600, 1600])
_TURN = 600
"""Seconds that pass at once: no deadline is within a real minute of where the clock stands."""
_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "max_versions": st.integers(0, 4),
        "cas_required": st.booleans(),
        "delete_version_after": _SECONDS,
    },
).filter(bool)

_CAS = st.sampled_from([None, None, 0, 0, -1, 1, "none"])
"""The version that a writer takes for the newest, counted from it; "none": he believes that there is none."""
_BACK = st.lists(st.integers(-1, 3), min_size=1, max_size=3)
"""Versions, counted back from the newest."""


@st.composite
def _drafts(draw: st.DrawFn) -> tuple[str, dict[str, Any], Any, list[int]]:
    """A step whose versions are counted from the newest."""
    verb = draw(
        st.sampled_from(
            [
                *("write", "write", "write", "patch", "patch", "rollback", "read", "compare"),
                *("delete-newest", "delete", "undelete", "undelete", "destroy", "settings", "remove"),
            ]
        )
    )
    values = {"write": _VALUES, "patch": _PATCHES, "settings": _SETTINGS}
    cas = draw(_CAS) if verb in {"write", "patch", "rollback"} else None
    back = [] if verb == "read" and draw(st.booleans()) else draw(_BACK)
    return verb, draw(values.get(verb, st.just({}))), cas, back


class Machine(RuleBasedStateMachine):
    """Does to the server what it does to the model, and compares after every step."""

    node: Node
    loop: asyncio.AbstractEventLoop
    runs = itertools.count()
    turns = itertools.count(1)
    flat = itertools.cycle([False, True])
    """Vault's paths and the flat ones lead to the same data."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = f"run-{next(self.runs)}"
        self.secrets: dict[str, Secret] = {}
        self.store = Store()
        self.now = 0

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the node's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def ask(self, name: str, step: Step) -> str:
        """Return what the server answers, as the model has it."""
        method, endpoint, query, body = step.request
        flat = endpoint == "data" and next(self.flat)
        place = "secrets" if flat else f"secret/{endpoint}"
        answer = await self.node.call(method, f"{place}/{self.folder}/{name}{query}", json=body)
        told = (answer.json() if answer.content else {}).get("data")
        if not told:
            return shown(answer.status_code)
        if step.verb == "metadata":
            told["versions"] = {
                number: [bool(one["deletion_time"]), one["destroyed"]]
                for number, one in told["versions"].items()
            }
            return shown(answer.status_code, {part: told[part] for part in METADATA})
        if step.verb == "read":
            metadata = told["metadata"]
            deleted = bool(metadata["deletion_time"])
            return shown(answer.status_code, told["data"], deleted, metadata["destroyed"])
        if step.verb == "compare":
            parts = ("added", "removed", "changed", "unchanged")
            return shown(answer.status_code, *(told[part] for part in parts))
        return shown(answer.status_code, told["version"])

    def step(self, name: str, draft: tuple[str, dict[str, Any], Any, list[int]]) -> Step:
        """Return a step whose versions are numbers."""
        verb, value, cas, back = draft
        current = self.secrets[name].current if name in self.secrets else 0
        known = 0 if cas == "none" else None if cas is None else max(0, current + cas)
        return Step(verb, value, known, tuple(max(1, current - one) for one in back))

    def together(self, name: str, steps: list[Step]) -> None:
        """Send steps side by side: some order of them explains all answers, and what is there afterwards."""
        answers = self.answers(name, steps)
        ends: list[Secret | None] = []
        for order in itertools.permutations(range(len(steps))):
            secret = self.secrets.get(name)
            for number in order:
                expected, secret = done(secret, steps[number], self.store, self.now)
                if expected != answers[number]:
                    break
            else:
                ends += [] if secret in ends else [secret]
        assert ends, list(zip(steps, answers, strict=True))
        looks = self.looks(max(end.current if end is not None else 0 for end in ends))
        seen = self.answers(name, looks)
        fitting = [
            end for end in ends if seen == [done(end, look, self.store, self.now)[0] for look in looks]
        ]
        assert fitting, (list(zip(looks, seen, strict=True)), ends)
        self.secrets.pop(name, None)
        if fitting[0] is not None:
            self.secrets[name] = fitting[0]

    def answers(self, name: str, steps: list[Step]) -> list[str]:
        """Send steps side by side and return what is answered."""

        async def sent() -> list[str]:
            return await asyncio.gather(*(self.ask(name, step) for step in steps))

        return self.wait(sent())

    def looks(self, last: int) -> list[Step]:
        """Questions for all that there can be of a secret with so many versions."""
        numbers = ((), *((number,) for number in range(1, last + 2)))
        compared = Step("compare", numbers=(max(1, last - 1), max(1, last)))
        return [Step("metadata"), compared, *(Step("read", numbers=one) for one in numbers)]

    @initialize()
    def a_store_as_it_is_made(self) -> None:
        self.configure(0, 0, cas_required=False)

    @rule(name=_NAMES, draft=_drafts())
    def one(self, name: str, draft: Any) -> None:
        self.together(name, [self.step(name, draft)])

    @rule(name=_NAMES, drafts=st.lists(_drafts(), min_size=2, max_size=4))
    def side_by_side(self, name: str, drafts: list[Any]) -> None:
        self.together(name, [self.step(name, draft) for draft in drafts])

    @rule(name=_NAMES, writers=st.integers(2, 4), cas=st.sampled_from([None, 0]))
    def writers(self, name: str, writers: int, cas: int | None) -> None:
        """Without check-and-set every writer makes a version; with it only one does."""
        self.together(name, [self.step(name, ("write", {"n": n}, cas, [])) for n in range(writers)])

    @rule(name=_NAMES, fields=st.integers(2, 4))
    def patchers(self, name: str, fields: int) -> None:
        """Every field that is added stays."""
        self.together(name, [self.step(name, ("patch", {f"f{n}": n}, None, [])) for n in range(fields)])

    @rule(keep=st.integers(0, 4), after=_SECONDS | st.just(NEVER), cas_required=st.booleans())
    def configure(self, keep: int, after: int, *, cas_required: bool) -> None:
        body = {"max_versions": keep, "delete_version_after": f"{after}s", "cas_required": cas_required}
        answer = self.wait(self.node.call("POST", "secret/config", json=body))
        assert answer.status_code == 204
        self.store = Store(keep, cas_required, after)

    @rule(turns=st.integers(1, 2))
    def time_passes(self, turns: int) -> None:
        for _ in range(turns):
            self.node.clock.move(next(self.turns) * _TURN)
            self.now += _TURN

    @invariant()
    def the_server_is_as_the_model(self) -> None:
        names = {name.partition("/")[0] + "/" * ("/" in name) for name in self.secrets}
        for place in ("secret/metadata", "secrets"):
            listed = self.wait(self.node.call("LIST", f"{place}/{self.folder}"))
            assert (listed.json()["data"]["keys"] if listed.status_code == 200 else []) == sorted(names)

    def teardown(self) -> None:
        for name, secret in self.secrets.items():
            looks = self.looks(secret.current)
            expected = [done(secret, look, self.store, self.now)[0] for look in looks]
            assert self.answers(name, looks) == expected


async def test_any_sequence_of_operations(node: Node) -> None:
    """Whatever is done to secrets, in any order and side by side, they are what the model says."""
    loop = asyncio.get_running_loop()
    machine = type("NodeMachine", (Machine,), {"node": node, "loop": loop})
    limits = settings(
        max_examples=8,
        stateful_step_count=30,
        deadline=None,
        # Every try costs seconds: a failure is shown as it was found.
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=limits)
    await ledger_is_good(node)
