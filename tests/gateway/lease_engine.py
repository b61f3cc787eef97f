"""An engine that leases out files in a folder, which is a target that outlives every process.

What is made is a file named by the lease's marker, so a stray is a file without a lease. Files beside the
folder tell the target to be away, to refuse, or the process that they name to end or to stop where it stands.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.leasing import Held, Made, Plan, issue
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, NotFound, Unavailable
from secrethub.leases.lease import Lease

PASSWORD = "canary-of-a-lease"

PLANS = {
    "app": Plan(role="app", target="one", ttl=3600, max_ttl=7200),
    "other": Plan(role="other", target="two", ttl=3600, max_ttl=7200),
    "brief": Plan(role="brief", target="one", ttl=1, max_ttl=7200),
    "long": Plan(role="long", target="one", ttl=1000 * 3600, max_ttl=1500 * 3600),
    "fixed": Plan(role="fixed", target="one", ttl=600, max_ttl=600, renewable=False),
}


class FolderEngine:
    """Engine kind ``folder``."""

    kind = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def operations(self) -> tuple[Operation, ...]:
        """Return what it offers: credentials."""
        return tuple(
            Operation(
                name="folder.creds",
                method=method,
                pattern="creds/{role}",
                handler=self.creds,
                capability="read",
                changes=True,
                subject="role",
                summary="Lease out a file.",
            )
            for method in ("read", "write")
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount + "creds/"

    async def creds(self, context: Context, _body: None) -> Answer:
        """Lease out a file."""
        plan = PLANS.get(context.params["role"])
        if plan is None:
            raise NotFound("no such role")

        async def act(lease: Lease) -> Made:
            self._perhaps_die("before")
            self._check(plan.target)
            file = self._folder / lease.marker
            file.write_text(lease.until.isoformat())
            self._perhaps_die("after")
            if (self._folder.parent / "fails").exists():
                raise InvalidRequest("the target refuses half way")
            return Made(
                data={"username": lease.marker, "password": PASSWORD}, kept={"username": lease.marker}
            )

        return await issue(context, plan, lambda lease: {"username": lease.marker}, act)

    async def revoke(
        self, _core: Core, _mount: Mount, target: str, held: Sequence[Held]
    ) -> Mapping[str, str]:
        """Remove files."""
        self._check(target)
        refused = {}
        for one in held:
            if (self._folder.parent / f"refuses-{one.data['username']}").exists():
                refused[one.lease.id] = "the target refuses"
                continue
            (self._folder / one.data["username"]).unlink(missing_ok=True)
            self._perhaps_die("revoking")
        return refused

    async def undo(self, core: Core, mount: Mount, target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """Remove what may be there."""
        return await self.revoke(core, mount, target, held)

    async def extend(self, _core: Core, _mount: Mount, held: Held, until: datetime) -> None:
        """Write the new end into the file."""
        self._check(held.lease.target)
        file = self._folder / held.data["username"]
        if not file.exists():
            raise InvalidRequest("it is gone")
        file.write_text(until.isoformat())

    def _check(self, target: str) -> None:
        if (self._folder.parent / f"away-{target}").exists():
            raise Unavailable("the target is away")

    def _perhaps_die(self, where: str) -> None:
        for how, what in (("die", signal.SIGKILL), ("stop", signal.SIGSTOP)):
            file = self._folder.parent / f"{how}-{where}"
            with contextlib.suppress(FileNotFoundError):
                if file.read_text() == str(os.getpid()):
                    file.unlink()
                    os.kill(os.getpid(), what)
