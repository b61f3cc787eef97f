"""One template's way to its file: read, render, write, tell, confirm; again whenever something changed.

Whatever fails, the last good file stays. What failed is said in the status and the log, by kind and
place, never by value. Core is told that a version is in use only after the program was told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import msgspec

from agent.backoff import Backoff
from agent.outcomes import PASSING
from agent.reader import Reader
from agent.reload import Reloads
from agent.settings import TemplateSettings
from agent.sink import Sink, Written
from agent.templates import NeedsSecret, Template, TemplateError
from secrethub.errors import Misconfigured, SecretHubError
from secrethub.wire.messages import Confirm

APPLICATION = "agent"
"""The slice of the cache that templates use."""
_PASSES = 64
"""Paths that a template may compute one after the other."""
_LEAST_WAIT = 30.0
"""Seconds between looks without an occasion, however short the TTL."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How a file does.

    Attributes:
        rendered: whether the file holds what was last rendered.
        error: why the newest try failed, or None.
    """

    rendered: bool = False
    error: str | None = None


class Delivery:
    """Keeps one file up to date.

    Args:
        settings: what and where.
        shared: the templates' environment.
        reader: where secrets come from.
        reloads: tells the program.
        confirm: tells Core that a version is in use.
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
        reloads: Reloads,
        confirm: Callable[[Confirm], Awaitable[None]],
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
        self._reloads = reloads
        self._confirm = confirm
        self._noticed = noticed
        self._ttl = max(ttl, _LEAST_WAIT)
        self._owed = False
        self._stirred = asyncio.Event()
        self._backoff = Backoff()

    def stir(self, path: str | None) -> None:
        """Look again because something about ``path`` (None: anything) may have changed."""
        if path is None or path in self.paths:
            self._stirred.set()

    def owe_reload(self) -> None:
        """Note that the program was not told of the present file yet."""
        self._owed = True

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            wait = await self._attempt()
            self.tried.set()
            try:
                async with asyncio.timeout(wait):
                    await self._stirred.wait()
            except TimeoutError:
                _log.debug("looking again", extra={"destination": str(self.settings.destination)})

    async def _attempt(self) -> float:
        """Deliver once; return the seconds until the next try without an occasion."""
        self._stirred.clear()
        try:
            await self._deliver()
        except PASSING as exc:
            self._enter(State(rendered=self.state.rendered, error=str(exc)))
            return self._backoff.next()
        except SecretHubError as exc:
            self._enter(State(rendered=self.state.rendered, error=str(exc)))
        else:
            self._backoff.reset()
            self._enter(State(rendered=True))
        return self._ttl * (0.9 + self._backoff.jitter(0.2))

    async def _deliver(self) -> None:
        text, versions = await self._render()
        written = await asyncio.to_thread(
            self._sink.put, text.encode("utf-8"), lambda: self._reloads.expect(self.settings)
        )
        if written is not Written.UNCHANGED:
            extra = {"destination": str(self.settings.destination), "changed": written.value}
            _log.info("file written", extra=extra)
        if written is Written.CONTENT or self._owed:
            self._owed = True
            if written is Written.CONTENT:
                self._enter(State(rendered=True))
            await self._reloads.tell(self.settings)
            self._owed = False
        for path, version in versions.items():
            await self._confirm(Confirm(path=path, version=version))

    async def _render(self) -> tuple[str, Mapping[str, int]]:
        """Return the text and the versions of the secrets in it."""
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
            served = await self._reader.read(APPLICATION, path)
        except SecretHubError as exc:
            values[path] = type(exc)(f"{path}: {exc}")
        else:
            values[path] = msgspec.json.decode(served.entry.data)
            versions[path] = served.entry.version

    def _enter(self, state: State) -> None:
        if state != self.state:
            if state.error is not None:
                extra = {"destination": str(self.settings.destination), "error": state.error}
                _log.error("the last good file stays", extra=extra)
            self.state = state
            self._noticed()


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
