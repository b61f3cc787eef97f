"""A steady load of reads and writes that remembers what it was promised, and what it saw instead.

Every write that was acknowledged is remembered; every read is held against what was acknowledged
before it was sent. Failures are counted, never hidden: nothing is tried again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import httpx2

from tests.e2e.processes import until
from tests.http_transport import PlainTransport

Kind = Literal["read", "write"]

_TIMEOUT = 10.0
_TOGETHER = 8


@dataclass(frozen=True)
class Event:
    """One request that was answered, or not."""

    at: float
    kind: Kind
    failure: str | None
    """None for success; otherwise what came instead."""


@dataclass
class Promises:
    """What acknowledged writes promised."""

    written: dict[str, str] = field(default_factory=dict)
    """Secrets written once: path → value."""
    versions: dict[str, dict[int, str]] = field(default_factory=dict)
    """Secrets written again and again: path → acknowledged version → value."""
    broken: list[str] = field(default_factory=list)
    """What was read against a promise."""

    def newest(self, path: str) -> int:
        """Return the newest acknowledged version of a secret."""
        return max(self.versions[path], default=0)

    def hold(self, path: str, floor: int, version: int, value: str) -> None:
        """Hold a read against what was acknowledged before it was sent."""
        if version < floor:
            self.broken.append(f"{path}: version {version} was read after {floor} was acknowledged")
        promised = self.versions[path].get(version)
        if promised is not None and promised != value:
            self.broken.append(f"{path}: version {version} was read with another value")


class Load:
    """Readers and writers in a thread of their own, between ``start`` and ``stop``.

    Args:
        url: a node's plain HTTP door.
        token: may read and write ``secrets/load/**``.
        readers: clients that read.
        writers: clients that write.
        pause: seconds between two turns of one client, on average: a steady load, not the greatest, for a
            start beside it takes all that a small machine has.
    """

    def __init__(
        self, url: str, token: str, *, readers: int = 4, writers: int = 2, pause: float = 0.1
    ) -> None:
        self.promises = Promises()
        self.began = 0.0
        self.ended = 0.0
        self._url = f"{url}/v1/"
        self._headers = {"X-Vault-Token": token}
        self._readers = readers
        self._writers = writers
        self._pause = pause
        self._events: list[Event] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.answered > 0 or self._error is not None, "the load's first answer")
        self.began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    @property
    def answered(self) -> int:
        """How many requests have succeeded."""
        return sum(event.failure is None for event in list(self._events))

    def failures(self) -> Counter[str]:
        """What came instead of success, and how often."""
        return Counter(f"{event.kind}: {event.failure}" for event in self._events if event.failure)

    def told(self, since: float = 0.0, until: float = float("inf")) -> str:
        """Say in one line what the load saw between two moments."""
        since, until = max(since, self.began), min(until, self.ended or time.monotonic())
        return "; ".join(self._of(kind, since, until) for kind in ("read", "write"))

    def longest_gap(self, kind: Kind, since: float = 0.0, until: float = float("inf")) -> float:
        """Return the longest time without a success between two moments, in seconds."""
        since, until = max(since, self.began), min(until, self.ended or time.monotonic())
        inside = [
            event.at
            for event in self._events
            if event.kind == kind and event.failure is None and since <= event.at <= until
        ]
        moments = [since, *inside, until]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    async def lost(self, url: str) -> list[str]:
        """Read back through ``url`` whatever was acknowledged, and return what is not there."""
        async with self._client(f"{url}/v1/") as client:
            found = list(self.promises.broken)
            paths = list(self.promises.written)
            for start in range(0, len(paths), _TOGETHER):
                some = paths[start : start + _TOGETHER]
                answers = await asyncio.gather(*(client.get(f"secrets/{path}") for path in some))
                for path, answer in zip(some, answers, strict=True):
                    if answer.status_code != 200 or _value(answer) != self.promises.written[path]:
                        found.append(f"{path}: acknowledged, and now {answer.status_code}")
            for path, versions in self.promises.versions.items():
                answer = await client.get(f"secrets/{path}")
                current = _version(answer)
                if current < self.promises.newest(path):
                    found.append(f"{path}: version {current} is newest, later ones were acknowledged")
                for version in sorted(versions)[-5:]:
                    answer = await client.get(f"secrets/{path}", params={"version": version})
                    # Only the ten newest are kept, and writes that got no answer may be among them.
                    if current - version < 10 and _value(answer) != versions[version]:
                        found.append(f"{path}: version {version} is not what was acknowledged")
        return found

    def _of(self, kind: Kind, since: float, until: float) -> str:
        events = [event for event in self._events if event.kind == kind and since <= event.at <= until]
        failures = Counter(event.failure for event in events if event.failure)
        told = ", ".join(f"{count}× {what}" for what, count in failures.most_common()) or "none"
        gap = self.longest_gap(kind, since, until)
        return f"{len(events)} {kind}s in {until - since:.1f} s, failed: {told}, longest gap {gap:.2f} s"

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._writers):
                    self.promises.versions[f"load/again-{number}"] = {}
                    group.create_task(self._repeat(lambda client, n=number: self._writing(client, n)))
                for _ in range(self._readers):
                    group.create_task(self._repeat(self._reading))
        except BaseException as exc:  # noqa: BLE001 - raised where the load is stopped
            self._error = exc
        self.ended = time.monotonic()

    async def _repeat(self, step: Callable[[httpx2.AsyncClient], Awaitable[None]]) -> None:
        async with self._client(self._url) as client:
            while not self._stop.is_set():
                await step(client)
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))

    async def _writing(self, client: httpx2.AsyncClient, number: int) -> None:
        value = f"{number}-{len(self._events)}-{random.getrandbits(32):08x}"
        again, once = f"load/again-{number}", f"load/once/{value}"
        body = {"data": {"value": value}}
        answer = await self._send("write", client.post(f"secrets/{again}", json=body))
        if answer is not None:
            self.promises.versions[again][int(answer.json()["data"]["version"])] = value
        if await self._send("write", client.post(f"secrets/{once}", json=body)) is not None:
            self.promises.written[once] = value

    async def _reading(self, client: httpx2.AsyncClient) -> None:
        path = random.choice(sorted(self.promises.versions))
        floor = self.promises.newest(path)
        if floor:
            answer = await self._send("read", client.get(f"secrets/{path}"))
            if answer is not None:
                self.promises.hold(path, floor, _version(answer), _value(answer))
        if self.promises.written:
            path = random.choice(list(self.promises.written))
            answer = await self._send("read", client.get(f"secrets/{path}"))
            if answer is not None and _value(answer) != self.promises.written[path]:
                self.promises.broken.append(f"{path}: was read with another value")

    async def _send(self, kind: Kind, sending: Awaitable[httpx2.Response]) -> httpx2.Response | None:
        """Await an answer and write down what came; None when it was no success."""
        answer: httpx2.Response | None = None
        failure: str | None = None
        try:
            answer = await sending
            if not answer.is_success:
                failure = f"{answer.status_code} {_code(answer)}".strip()
        except httpx2.TransportError as exc:
            failure = type(exc).__name__
        self._events.append(Event(time.monotonic(), kind, failure))
        return answer if failure is None else None

    @asynccontextmanager
    async def _client(self, url: str) -> Any:
        transport = PlainTransport()
        async with httpx2.AsyncClient(
            base_url=url, headers=self._headers, timeout=_TIMEOUT, transport=transport
        ) as client:
            yield client


def _version(answer: httpx2.Response) -> int:
    return int(answer.json()["data"]["metadata"]["version"])


def _value(answer: httpx2.Response) -> str:
    return str(answer.json()["data"]["data"]["value"])


def _code(answer: httpx2.Response) -> str:
    try:
        return str(answer.json().get("code", ""))
    except ValueError:
        return ""
