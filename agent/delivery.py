"""One template's way to its file: read, render, write, tell, confirm; again whenever something changed.

Whatever fails, the last good file stays. What failed is said in the status and the log, by kind and
place, never by value. The program is told in a task of its own, again until it hears; Core is told
that a version is in use only afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from agent.backoff import Backoff
from agent.credentials import Credentials
from agent.grants import Peer
from agent.ledger import LocalLedger
from agent.outcomes import PASSING
from agent.reader import Reader
from agent.reload import Reloads
from agent.settings import TemplateSettings
from agent.sink import Sink, Written
from agent.templates import MADE, NeedsSecret, Template, TemplateError
from agent.watches import FILES
from secrethub.errors import Misconfigured, SecretHubError

_PASSES = 64
"""Paths that a template may compute one after the other."""
_LEAST_WAIT = 30.0
"""Seconds between looks without an occasion, however short the TTL."""
_OWN = Peer(pid=os.getpid(), uid=os.geteuid(), gids=frozenset())
"""Who gets what templates use."""
_UNHEARD = "file written, reload failed"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file: how it stands, and why."""

    state: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How a file does.

    Attributes:
        rendered: whether the file holds what was last rendered.
        missed: why the newest try to write it failed, or None.
        unheard: why its program could not be told of it, or None.
    """

    rendered: bool = False
    missed: Problem | None = None
    unheard: Problem | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong."""
        return tuple(filter(None, (self.missed, self.unheard)))

    @property
    def error(self) -> str | None:
        """What is wrong, in one line, or None."""
        return "; ".join(f"{problem.state}: {problem.reason}" for problem in self.problems) or None


class Delivery:
    """Keeps one file up to date.

    Args:
        settings: what and where.
        shared: the templates' environment.
        reader: where secrets come from.
        ledger: notes what Core does not hear of.
        reloads: tells the program.
        confirm: takes note of the versions in the file, once its program was told.
        noticed: called when the state changed.
        ttl: seconds after which secrets are read again without an occasion.

    Attributes:
        settings: as given.
        state: how the file does.
        paths: the secrets in it.
        tried: set after the first try.

    Raises:
        Misconfigured: the template cannot be read or compiled.
    """

    def __init__(
        self,
        settings: TemplateSettings,
        shared: jinja2.Environment,
        reader: Reader,
        credentials: Credentials,
        ledger: LocalLedger,
        reloads: Reloads,
        confirm: Callable[[Delivery, Mapping[str, int]], None],
        noticed: Callable[[], None],
        ttl: float,
    ) -> None:
        self.settings = settings
        self.state = State()
        self._template = compile_template(settings, shared)
        self.paths = self._template.paths
        self.tried = asyncio.Event()
        self._sink = Sink(settings=settings)
        self._reader = reader
        self._credentials = credentials
        self._ledger = ledger
        self._reloads = reloads
        self._confirm = confirm
        self._noticed = noticed
        self._ttl = max(ttl, _LEAST_WAIT)
        self._writing = asyncio.Lock()
        self._versions: Mapping[str, int] = {}
        self._told = True
        self._owed = asyncio.Event()
        self._stirred = asyncio.Event()
        self._backoff = Backoff()

    def stir(self, path: str | None) -> None:
        """Look again because something about ``path`` (None: anything) may have changed."""
        if path is None or path in self.paths:
            self._stirred.set()

    def owe_reload(self) -> None:
        """Note that the program was not told of the present file yet."""
        self._told = False
        self._owed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_file(), name=f"file:{self.settings.destination}")
            group.create_task(self._keep_told(), name=f"reload:{self.settings.destination}")

    async def _keep_file(self) -> None:
        while True:
            wait = await self._attempt()
            self.tried.set()
            await _wait(self._stirred, wait)

    async def _attempt(self) -> float:
        """Write the file once; return the seconds until the next try without an occasion."""
        self._stirred.clear()
        try:
            await self._deliver()
        except PASSING as exc:
            await self._fail(str(exc))
            return self._backoff.next()
        except SecretHubError as exc:
            await self._fail(str(exc))
        except Exception as exc:  # noqa: BLE001 - a defect; it concerns this file and no other
            await self._fail(_defect(exc), exc)
        else:
            self._backoff.reset()
            self._enter(replace(self.state, rendered=True, missed=None))
        return self._ttl * (0.9 + self._backoff.jitter(0.2))

    async def _deliver(self) -> None:
        content, versions = await self._render()
        async with self._writing:
            written = await asyncio.to_thread(
                self._sink.put, content, lambda: self._reloads.expect(self.settings)
            )
        self._versions = versions
        if written is not Written.UNCHANGED:
            extra = {"destination": str(self.settings.destination), "changed": written.value}
            _log.info("file written", extra=extra)
        if written is Written.CONTENT:
            self.owe_reload()
        elif self._told:
            self._confirm(self, versions)

    async def _fail(self, reason: str, defect: Exception | None = None) -> None:
        present = await asyncio.to_thread(_is_there, self.settings.destination)
        stands = "the last good file stays" if present else "no file written yet"
        self._enter(replace(self.state, missed=Problem(stands, reason)), defect)

    async def _keep_told(self) -> None:
        """Tell the program whenever it is owed, and again until it hears."""
        backoff = Backoff()
        await self.tried.wait()
        while True:
            await self._owed.wait()
            self._owed.clear()
            if await self._tell():
                backoff.reset()
            else:
                await _wait(self._owed, backoff.next())  # newer content is reason enough to try at once
                self._owed.set()

    async def _tell(self) -> bool:
        """Tell the program; tell whether it heard."""
        try:
            async with self._writing:  # a mark that is read now stands for a file in place
                mark = self._reloads.mark(self.settings)
            await self._reloads.tell(self.settings, mark)
        except SecretHubError as exc:
            self._enter(replace(self.state, unheard=Problem(_UNHEARD, str(exc))))
            return False
        except Exception as exc:  # noqa: BLE001 - a defect; it concerns this file and no other
            self._enter(replace(self.state, unheard=Problem(_UNHEARD, _defect(exc))), exc)
            return False
        self._enter(replace(self.state, unheard=None))
        if not self._owed.is_set():  # else there is newer content, and it is told next
            self._told = True
            self._confirm(self, self._versions)
        return True

    async def _render(self) -> tuple[bytes, Mapping[str, int]]:
        """Return the content and the versions of the secrets in it."""
        values: dict[str, Mapping[str, Any] | SecretHubError] = {}
        versions: dict[str, int] = {}
        missing = set(self._template.paths)
        for _pass in range(_PASSES):
            await asyncio.gather(*(self._fetch(path, values, versions) for path in missing))
            self.paths = self._template.paths | values.keys()
            try:
                return await asyncio.to_thread(self._template.render, values), versions
            except NeedsSecret as needs:
                missing = {needs.path}
        raise TemplateError(f"more than {_PASSES} paths are computed one after the other")

    async def _fetch(
        self, path: str, values: dict[str, Mapping[str, Any] | SecretHubError], versions: dict[str, int]
    ) -> None:
        try:
            if path.startswith(MADE):
                values[path] = await self._obtain(path.removeprefix(MADE))
                return
            served = await self._reader.read(FILES, path)
            if served.source != "core":
                self._ledger.note(_OWN, FILES, path, served.entry.version, served.source)
        except SecretHubError as exc:
            values[path] = type(exc)(f"{path.removeprefix(MADE)}: {exc}")
        else:
            values[path] = msgspec.json.decode(served.entry.data)
            versions[path] = served.entry.version

    async def _obtain(self, path: str) -> Mapping[str, Any]:
        given = await self._credentials.get(FILES, path)
        if given.source != "core":
            self._ledger.note(_OWN, FILES, path, 0, given.source)
        fields: Mapping[str, Any] = msgspec.json.decode(given.lease.data)
        return fields

    def _enter(self, state: State, defect: Exception | None = None) -> None:
        if state == self.state:
            return
        extra: dict[str, object] = {"destination": str(self.settings.destination)}
        for problem in state.problems:
            if problem not in self.state.problems:
                _log.error(problem.state, exc_info=defect, extra={**extra, "error": problem.reason})
        if self.state.problems and not state.problems:
            _log.info("in order again", extra=extra)
        self.state = state
        self._noticed()


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _defect(exc: Exception) -> str:
    """Return what may be said of a defect: its text could quote a value."""
    return f"internal error ({type(exc).__name__})"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, and no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def compile_template(settings: TemplateSettings, shared: jinja2.Environment) -> Template:
    """Read and compile a template.

    Raises:
        Misconfigured: it cannot be read, or is no template.
    """
    try:
        source = settings.content or (settings.source.read_text("utf-8") if settings.source else "")
        return Template(source, shared)
    except (OSError, UnicodeDecodeError) as exc:
        raise Misconfigured(f"template {settings.source} cannot be read") from exc
    except TemplateError as exc:
        raise Misconfigured(f"template {settings.source or settings.destination}: {exc}") from exc
