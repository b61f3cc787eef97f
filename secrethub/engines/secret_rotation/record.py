"""A rotation as it is kept: one row of authority, with what is secret of it sealed to its place.

The row's key is the secret's path in its store, ``secret/prod/db``. Its ``expires_at`` says when the next
work is due, which is all that is looked for; a row without it waits for somebody to ask.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from secrethub.clock import from_micros, micros
from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.flat import flat_view
from secrethub.engines.kv.store import check_unreserved
from secrethub.engines.mounts import Mount
from secrethub.engines.rotators.rotator import Plan
from secrethub.engines.runtime import Core
from secrethub.engines.values import encoded
from secrethub.errors import InvalidRequest
from secrethub.rotation.schedule import Schedule
from secrethub.rotation.steps import Run
from secrethub.storage.authority import ROTATIONS, Row

Late = Literal["retire", "undo"]


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What is configured.

    Attributes:
        rotator: its kind.
        options: of the rotator, those that may be shown.
        mounts: UUIDs of the mounts that the rotator's options name, by the path that does.
        schedule: when.
        confirm_within: seconds that are given to those who use the secret; 0 to wait for nobody.
        late: what is done when they are over.
        paused: whether the schedule rests.
    """

    rotator: str
    options: dict[str, str] = {}
    mounts: dict[str, str] = {}
    schedule: Schedule = Schedule()
    confirm_within: int = 0
    late: Late = "retire"
    paused: bool = False


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation and how far it is.

    Attributes:
        key: the secret's path, mount included.
        revision: of the row; 0 before it is written.
        uuid: its identity.
        mount: UUID of the secret's mount.
        path: the secret's, below that.
        definition: what is configured.
        runs: how many were begun.
        run: the one under way.
        scheduled_at: the schedule's next instant without jitter, microseconds since the epoch; 0 for none.
        config: the rotator's secrets, sealed.
        work: the plan of the run under way, sealed.
    """

    key: str
    revision: int = 0
    uuid: str
    mount: str
    path: str
    definition: Definition
    runs: int = 0
    run: Run | None = None
    scheduled_at: int = 0
    config: str = ""
    work: str = ""

    def body(self) -> dict[str, Any]:
        """Return the row's body."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        del body["key"], body["revision"]
        return body

    def secrets(self, keyring: Keyring) -> dict[str, str]:
        """Return the rotator's secrets."""
        if not self.config:
            return {}
        return msgspec.json.decode(
            _opened(keyring, self.config, _config_place(self.uuid)), type=dict[str, str]
        )

    def with_secrets(self, keyring: Keyring, secrets: Mapping[str, str]) -> Rotation:
        """Return it with other secrets of the rotator."""
        sealed = ""
        if secrets:
            sealed = _sealed(keyring, msgspec.json.encode(secrets), _config_place(self.uuid))
        return msgspec.structs.replace(self, config=sealed)

    def plan(self, keyring: Keyring) -> Plan:
        """Return the plan of the run under way."""
        return msgspec.json.decode(_opened(keyring, self.work, _work_place(self.uuid, self.runs)), type=Plan)

    def begun(self, keyring: Keyring, run: Run, plan: Plan) -> Rotation:
        """Return it with a run under way."""
        return msgspec.structs.replace(self, run=run, runs=run.number).with_plan(keyring, plan)

    def with_plan(self, keyring: Keyring, plan: Plan) -> Rotation:
        """Return it with what is known of the plan of the run under way."""
        sealed = _sealed(keyring, encoded(plan), _work_place(self.uuid, self.runs))
        return msgspec.structs.replace(self, work=sealed)

    def planned(self, now: datetime) -> Rotation:
        """Return it with the schedule's first instant after ``now``."""
        following = None
        if not self.definition.paused:
            previous = from_micros(self.scheduled_at) if self.scheduled_at else now
            following = self.definition.schedule.following(previous, now)
        return msgspec.structs.replace(self, scheduled_at=0 if following is None else micros(following))

    def begins_at(self, part: float) -> datetime | None:
        """Return when the scheduled run is to begin; ``part`` is random, from 0 to 1."""
        if not self.scheduled_at:
            return None
        return self.definition.schedule.late(from_micros(self.scheduled_at), part)


def rotation_of(row: Row) -> Rotation:
    """Return the rotation that a row describes."""
    return msgspec.convert({**row.body, "key": row.key, "revision": row.revision}, Rotation)


async def place_of(core: Core, path: str) -> tuple[Mount, str]:
    """Return the mount of a secret, and its path below it.

    Args:
        core: unsealed.
        path: canonical, as people write it (``secrets/prod/db``) or as the store has it.

    Raises:
        InvalidRequest: no secret with versions can be there.
    """
    if path.startswith("secrets/") and flat_view("read", path) != path:
        path = "secret/" + path.removeprefix("secrets/")
    for mount in await core.mounts.load():
        if mount.covers(path):
            rest = path.removeprefix(mount.path)
            if mount.kind == "kv" and rest and rest != path and not rest.endswith("/"):
                check_unreserved(mount.path, rest)
                return mount, rest
            break
    raise InvalidRequest("a secret's path begins with that of a key/value store of version 2")


def _config_place(uuid: str) -> Place:
    return Place(table=ROTATIONS.name, column="config", row=uuid, version=1)


def _work_place(uuid: str, number: int) -> Place:
    return Place(table=ROTATIONS.name, column="work", row=uuid, version=number)


def _sealed(keyring: Keyring, plain: bytes, place: Place) -> str:
    return base64.b64encode(keyring.seal(plain, place)).decode("ascii")


def _opened(keyring: Keyring, sealed: str, place: Place) -> bytes:
    return keyring.open(base64.b64decode(sealed), place)
