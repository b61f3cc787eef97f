"""When programs are told of new files: once per burst of changes, and never forgotten.

A marker in the state directory is written before a file is replaced and removed after its program
was told, so an agent killed in between tells it after its restart. When to try again is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Iterable

from agent import triggers
from agent.settings import ReloadSettings, TemplateSettings
from agent.state import StateDirectory

DEBOUNCE = 0.1
"""Seconds in which further changes join the same reload."""

_log = logging.getLogger(__name__)


class Reloads:
    """Tells programs.

    Args:
        state: holds the markers.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._gathering: dict[tuple[ReloadSettings, int], asyncio.Task[None]] = {}
        self._one_at_a_time: dict[tuple[ReloadSettings, int], asyncio.Lock] = {}

    def expect(self, template: TemplateSettings) -> None:
        """Note durably that the file is about to change. Blocks on the disk."""
        if template.reload is not None:
            self._state.write(_marker(template), secrets.token_hex(8).encode("ascii"))

    def expected(self, templates: Iterable[TemplateSettings]) -> list[TemplateSettings]:
        """Return those whose program was not told before an earlier run ended."""
        return [t for t in templates if t.reload is not None and self._state.read(_marker(t)) is not None]

    def mark(self, template: TemplateSettings) -> bytes | None:
        """Return what :meth:`expect` noted last. Call it while the file is not being written."""
        return None if template.reload is None else self._state.read(_marker(template))

    async def tell(self, template: TemplateSettings, mark: bytes | None) -> None:
        """Tell the program of a template that its file changed; together with other files of its.

        Args:
            template: whose file.
            mark: what :meth:`mark` returned for the file in place.

        Raises:
            ReloadFailed: it could not be told.
        """
        if template.reload is None:
            return
        marker = _marker(template)
        key = (template.reload, os.geteuid() if template.uid is None else template.uid)
        if key not in self._gathering:
            self._gathering[key] = asyncio.create_task(self._fire(key), name="reload")
        await asyncio.shield(self._gathering[key])
        if self._state.read(marker) == mark:  # else the file changed again meanwhile
            self._state.remove(marker)

    async def _fire(self, key: tuple[ReloadSettings, int]) -> None:
        async with contextlib.AsyncExitStack() as turn:
            try:
                await asyncio.sleep(DEBOUNCE)
                # While one reload runs, whatever changes gathers for exactly one more.
                await turn.enter_async_context(self._one_at_a_time.setdefault(key, asyncio.Lock()))
            finally:
                del self._gathering[key]
            await triggers.fire(*key)
            _log.info("reloaded", extra={"kind": type(key[0]).__name__})


def _marker(template: TemplateSettings) -> str:
    digest = hashlib.sha256(os.fsencode(template.destination)).hexdigest()
    return f"reload-{digest[:32]}"
