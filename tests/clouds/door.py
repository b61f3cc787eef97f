"""The cloud of the pocket behind a door, for tests in the same process: it can be shut, and slow to open.

Named as ``key_service_opener`` in a node's settings; a key is the name of its door.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from secrethub.errors import Unavailable
from secrethub.ids import new_uuid
from secrethub.node import KeyServiceSettings
from secrethub.seal.key_services import KeyService
from tests.clouds import pocket

OPENER = "tests.clouds.door:Services"


@dataclass
class Door:
    """Of one key.

    Attributes:
        settings: of the key.
        asked: times that somebody wanted a slot's secret.
        shut: nobody gets in.
        answered: those who ask wait for this.
    """

    settings: KeyServiceSettings
    asked: int = 0
    shut: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)


_doors: dict[str, Door] = {}


@contextlib.contextmanager
def hung() -> Iterator[Door]:
    """Hang a door, open and without anybody waiting."""
    door = Door(msgspec.structs.replace(pocket.SETTINGS, key=new_uuid()))
    door.answered.set()
    _doors[door.settings.key] = door
    try:
        yield door
    finally:
        del _doors[door.settings.key]


class Services:
    """The keys in a node's settings."""

    def __init__(self, settings: tuple[KeyServiceSettings, ...]) -> None:
        self._pocket = pocket.Services(settings)
        self._doors = {one.name: _doors[one.key] for one in settings}

    def kinds(self) -> Mapping[str, str]:
        """Return name → kind."""
        return self._pocket.kinds()

    def get(self, name: str, kind: str) -> KeyService:
        """Return a key."""
        return _Key(self._pocket.get(name, kind), self._doors[name])


class _Key:
    def __init__(self, key: KeyService, door: Door) -> None:
        self._key = key
        self._door = door

    async def wrap(self, secret: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Wrap for one cluster and slot, whatever the door is like."""
        return await self._key.wrap(secret, cluster_id, slot_id)

    async def unwrap(self, wrapped: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return what was wrapped, if the door lets anybody in."""
        self._door.asked += 1
        await self._door.answered.wait()
        if self._door.shut:
            raise Unavailable("the door is shut")
        return await self._key.unwrap(wrapped, cluster_id, slot_id)
