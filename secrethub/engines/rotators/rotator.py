"""What a rotator is: it plans new fields of a secret and makes them good at whatever they open.

It does not write the secret: that is done for it when a run is promoted. Everything else that a rotator does
can be repeated, for a process may die right after it: the plan is stored before anything is done, and is the
same each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError, Unavailable


class TargetAway(Unavailable):
    """What a run would be planned with does not answer; nothing has happened."""


class Refused(SecretHubError):
    """The target refuses what a rotator wants; trying again does not help. The message has no secret."""

    code = "rotation_refused"


class Awaited(SecretHubError):
    """Somebody was asked to do the step and has not said how it went: look again a little later."""

    code = "rotation_awaited"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is configured for one secret.

    Attributes:
        core: of the process that does it.
        key: the secret's path.
        rotation: its UUID.
        run: number of the run.
        attempt: of the step, from 1 on.
        waiting_since: since when this attempt is awaited, microseconds since the epoch; 0 before.
        options: what may be shown.
        secrets: what may not.
        mounts: the mount of each path of :meth:`Rotator.needs`, by its UUID.
    """

    core: Core = field(repr=False)
    key: str
    rotation: str
    run: int
    attempt: int
    waiting_since: int
    options: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    mounts: Mapping[str, str]

    async def mount_of(self, path: str, kind: str) -> Mount:
        """Return the mount of a path that was configured, wherever it is mounted by now.

        One that was mounted anew at the same path is another.

        Args:
            path: as :meth:`Rotator.needs` returned it.
            kind: of engine.

        Raises:
            Refused: it is there no more.
        """
        found = await self.core.mounts.by_uuid(self.mounts.get(path, ""))
        if found is None or found[0].leaving or found[0].kind != kind:
            raise Refused(f"the engine that {path} was configured for is not mounted any more")
        return found[0]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is about to do; stored sealed. Not shown by ``repr``.

    Attributes:
        fields: of the secret, as they shall be.
        before: the same fields as they were; those that were not there are missing.
        notes: what else the rotator has to know.
    """

    fields: dict[str, Any]
    before: dict[str, Any]
    notes: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Plan()"


class Rotator(Protocol):
    """A kind of rotator."""

    kind: str
    options: frozenset[str]
    """Names of options that may be shown."""
    secrets: frozenset[str]
    """Names of options that may not."""

    def check(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        """Check a configuration.

        Raises:
            InvalidRequest: what is wrong with it.
        """
        ...

    def needs(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """Return the paths that whoever configures this must be allowed to update.

        They are those whose power the rotator lends him. Each is remembered with its mount.
        """
        ...

    async def probe(self, setup: Setup, current: Mapping[str, Any]) -> None:
        """Find out whether a run could succeed, without changing anything.

        Raises:
            Refused, Unavailable: it could not, or not now.
        """
        ...

    async def plan(self, setup: Setup, current: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the new fields, and what else to remember.

        Args:
            setup: what is configured.
            current: the secret's fields now; empty when there is no secret.

        Raises:
            Refused: the secret is not as it must be.
        """
        ...

    async def create(self, setup: Setup, plan: Plan) -> Mapping[str, Any]:
        """Make the new value good at the target.

        Returns:
            Planned fields whose values only the target could make; they are stored before anything else is
            done. If that fails this is called again, with the plan as it was.

        Raises:
            Refused, Unavailable: it could not be; whether something happened may be unknown.
            Awaited: it is being done.
        """
        ...

    async def verify(self, setup: Setup, plan: Plan) -> None:
        """Use the new value as its users will. Raises as :meth:`create`."""
        ...

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """Take the old value's power away. Raises as :meth:`create`."""
        ...

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Make the old value good and take the new one's power away. Raises as :meth:`create`."""
        ...
