"""Key/value secrets over HTTP against a model: any sequence of operations, writers side by side too."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from secrethub.engines.kv.merge_patch import merged
from tests.gateway.behind import ledger_is_good
from tests.gateway.conftest import Node

T = TypeVar("T")

_NAMES = st.sampled_from(["a", "a", "a", "a/b"])
_KEYS = st.sampled_from(["x", "y", "z"])
_LEAVES = (
    st.integers(0, 3) | st.text("äb\n", max_size=2) | st.booleans() | st.lists(st.integers(0, 1), max_size=2)
)
_VALUES = st.dictionaries(_KEYS, _LEAVES | st.dictionaries(_KEYS, _LEAVES, max_size=2), max_size=3)
_PATCHES = st.dictionaries(
    _KEYS, st.none() | _LEAVES | st.dictionaries(_KEYS, st.none() | _LEAVES, max_size=2), max_size=3
)
_VERBS = st.sampled_from(["delete", "undelete", "destroy"])
_BACK = st.lists(st.integers(0, 3), min_size=1, max_size=3)
"""Versions, counted from the newest."""
_CAS = st.sampled_from(["none", "right", "wrong"])


@dataclass
class Version:
    """One version as it should be."""

    value: dict[str, Any]
    deleted: bool = False
    destroyed: bool = False

    @property
    def there(self) -> bool:
        """Whether it can be read."""
        return not self.deleted and not self.destroyed


@dataclass
class Secret:
    """A secret as it should be."""

    current: int = 0
    keep: int = 0
    versions: dict[int, Version] = field(default_factory=dict)

    def write(self, value: dict[str, Any]) -> None:
        """Make a version."""
        self.current += 1
        self.versions[self.current] = Version(value)
        least = self.current - (self.keep or 10)
        self.versions = {number: one for number, one in self.versions.items() if number > least}


class Machine(RuleBasedStateMachine):
    """Does to the server what it does to the model, and compares after every step."""

    node: Node
    loop: asyncio.AbstractEventLoop
    runs = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = f"run-{next(self.runs)}"
        self.secrets: dict[str, Secret] = {}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the node's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def call(self, method: str, endpoint: str, name: str, body: Any = None) -> tuple[int, Any]:
        """Return how a request is answered."""
        answer = self.wait(
            self.node.call(method, f"secret/{endpoint}/{self.folder}/{name.lstrip('/')}", json=body)
        )
        return answer.status_code, answer.json() if answer.content else None

    def body(self, name: str, cas: str, data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return the body of a write, and whether check-and-set lets it pass."""
        current = self.secrets[name].current if name in self.secrets else 0
        if cas == "none":
            return {"data": data}, True
        return {"data": data, "options": {"cas": current if cas == "right" else current + 1}}, cas == "right"

    @rule(name=_NAMES, value=_VALUES, cas=_CAS)
    def write(self, name: str, value: dict[str, Any], cas: str) -> None:
        body, passes = self.body(name, cas, value)
        status, answer = self.call("POST", "data", name, body)
        assert status == (200 if passes else 400)
        if passes:
            secret = self.secrets.setdefault(name, Secret())
            secret.write(value)
            assert answer["data"]["version"] == secret.current

    @rule(name=_NAMES, change=_PATCHES, cas=_CAS)
    def patch(self, name: str, change: dict[str, Any], cas: str) -> None:
        body, passes = self.body(name, cas, change)
        status, _ = self.call("PATCH", "data", name, body)
        secret = self.secrets.get(name)
        if secret is None:
            assert status == 404
        elif not passes:
            assert status == 400
        elif secret.current not in secret.versions or not secret.versions[secret.current].there:
            assert status == 404
        else:
            assert status == 200
            secret.write(merged(secret.versions[secret.current].value, change))

    @rule(name=_NAMES, number=st.integers(1, 6))
    def rollback(self, name: str, number: int) -> None:
        status, _ = self.call("POST", "rollback", name, {"version": number})
        secret = self.secrets.get(name)
        old = None if secret is None else secret.versions.get(number)
        assert status == (200 if old is not None and old.there else 404)
        if secret is not None and old is not None and old.there:
            secret.write(old.value)

    @rule(name=_NAMES)
    def delete_newest(self, name: str) -> None:
        assert self.call("DELETE", "data", name)[0] == 204
        secret = self.secrets.get(name)
        if secret is not None and secret.current in secret.versions:
            secret.versions[secret.current].deleted |= secret.versions[secret.current].there

    @rule(name=_NAMES, changes=st.lists(st.tuples(_VERBS, _BACK), min_size=1, max_size=4))
    def change_versions(self, name: str, changes: list[tuple[str, list[int]]]) -> None:
        current = self.secrets[name].current if name in self.secrets else 0
        for verb, back in changes:
            numbers = [max(1, current - one) for one in back]
            assert self.call("POST", verb, name, {"versions": numbers})[0] == 204
            for number in numbers:
                version = self.secrets[name].versions.get(number) if name in self.secrets else None
                if version is None or version.destroyed:
                    continue
                if verb == "destroy":
                    version.destroyed = True
                else:
                    version.deleted = verb == "delete"

    @rule(name=_NAMES, keep=st.integers(0, 4))
    def keep(self, name: str, keep: int) -> None:
        assert self.call("POST", "metadata", name, {"max_versions": keep})[0] == 204
        self.secrets.setdefault(name, Secret()).keep = keep

    @rule(name=_NAMES)
    def remove(self, name: str) -> None:
        assert self.call("DELETE", "metadata", name)[0] == 204
        self.secrets.pop(name, None)

    @rule(name=_NAMES, writers=st.integers(2, 6), with_cas=st.booleans())
    def race(self, name: str, writers: int, *, with_cas: bool) -> None:
        """Without check-and-set every writer makes a version; with it exactly one does."""
        bodies = [
            self.body(name, "right" if with_cas else "none", {"writer": number})[0]
            for number in range(writers)
        ]

        async def together() -> list[Any]:
            path = f"secret/data/{self.folder}/{name}"
            return await asyncio.gather(*(self.node.call("POST", path, json=body) for body in bodies))

        answers = self.wait(together())
        made = {
            answer.json()["data"]["version"]: body["data"]
            for answer, body in zip(answers, bodies, strict=True)
            if answer.status_code == 200
        }
        assert len(made) == (1 if with_cas else writers)
        assert sum(answer.status_code == 400 for answer in answers) == writers - len(made)
        secret = self.secrets.setdefault(name, Secret())
        for number in sorted(made):
            secret.write(made[number])
            assert secret.current == number

    @rule(name=_NAMES)
    def read_every_version(self, name: str) -> None:
        secret = self.secrets.get(name, Secret())
        for number in range(1, secret.current + 2):
            status, answer = self.call("GET", "data", f"{name}?version={number}")
            version = secret.versions.get(number)
            assert status == (200 if version is not None and version.there else 404)
            if version is None:
                assert "data" not in answer
            else:
                assert answer["data"]["data"] == (version.value if version.there else None)
                assert answer["data"]["metadata"]["destroyed"] == version.destroyed
                assert bool(answer["data"]["metadata"]["deletion_time"]) == version.deleted

    @invariant()
    def the_server_is_as_the_model(self) -> None:
        names = {name.partition("/")[0] + "/" * ("/" in name) for name in self.secrets}
        status, answer = self.call("LIST", "metadata", "")
        assert (answer["data"]["keys"] if status == 200 else []) == sorted(names)
        for name, secret in self.secrets.items():
            status, answer = self.call("GET", "metadata", name)
            assert status == 200
            assert answer["data"]["current_version"] == secret.current
            shown = {
                int(number): (bool(one["deletion_time"]), one["destroyed"])
                for number, one in answer["data"]["versions"].items()
            }
            assert shown == {n: (one.deleted, one.destroyed) for n, one in secret.versions.items()}
            newest = secret.versions.get(secret.current)
            status, answer = self.call("GET", "data", name)
            assert status == (200 if newest is not None and newest.there else 404)
            if newest is not None and newest.there:
                assert answer["data"]["data"] == newest.value


async def test_any_sequence_of_operations(node: Node) -> None:
    """Whatever is done to secrets, in any order and side by side, they are what the model says."""
    loop = asyncio.get_running_loop()
    machine = type("NodeMachine", (Machine,), {"node": node, "loop": loop})
    limits = settings(
        max_examples=8,
        stateful_step_count=20,
        deadline=None,
        # Every try costs seconds: a failure is shown as it was found.
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=limits)
    await ledger_is_good(node)
