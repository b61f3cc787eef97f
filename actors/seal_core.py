"""What every part of SealState stands on: the root key, the machine, and keeping in step with the database.

One transition at a time: every method here is called under the turn, except where it says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any, TypeVar

from actors.handles.protocol import Handles
from actors.node_witness import NodeWitness
from actors.root_key import RootKey, proven, recover, successor
from actors.seal_journal import SealJournal
from actors.tree import SEAL_STATE
from secrethub.audit.event import Origin
from secrethub.clock import Clock
from secrethub.crypto.sealed_box import Recipient
from secrethub.engines.seal_status import described
from secrethub.errors import Misconfigured, NotInitialised, PutBack, Sealed, Stale, Unavailable
from secrethub.operations.seal_lifecycle import (
    ClusterRow,
    commit_unsealed,
    load_cluster,
    load_slots,
    next_epoch,
)
from secrethub.seal.ceremony import Ceremony
from secrethub.seal.key_services import KeyServices
from secrethub.seal.slots import Slot
from secrethub.seal.state import Phase, SealMachine
from secrethub.seal.wishes import Purpose, deciding
from secrethub.storage.database import Database
from secrethub.storage.restore import commit_accepted, commit_rolled_back

_log = logging.getLogger(__name__)

T = TypeVar("T")


class SealCore:
    """The state of SealState, and the transitions that its parts share."""

    def __init__(
        self,
        *,
        node: str,
        database: Database,
        handles: Handles,
        psk: bytes,
        clock: Clock,
        services: KeyServices,
        witness: NodeWitness | None,
    ) -> None:
        self._node = node
        self._database = database
        self._handles = handles
        self._psk = psk
        self._clock = clock
        self._services = services
        self._witness = witness
        self._incarnation: int | None = None
        self._machine = SealMachine()
        self._slots: tuple[Slot, ...] = ()
        self._slots_of = 0
        """The version of the root key whose slots these are, and the machine has."""
        self._given_for: tuple[bool, int] | None = None
        """What shares are given for: whether to accept that the database was put back, in which timeline."""
        self._held: RootKey | None = None
        self._next: RootKey | None = None
        """The root key of a commit whose outcome is not known."""
        self._ceremonies: dict[Purpose, Ceremony] = {}
        self._recipient = Recipient()
        self._journal = SealJournal(database, node=node)
        self._adopted = True
        self._turn = asyncio.Lock()
        self._done = asyncio.Event()

    def __repr__(self) -> str:
        return f"SealState(node={self._node})"

    @asynccontextmanager
    async def _lasting_turn(self) -> AsyncIterator[None]:
        """Take the turn, in a process that stays. One that is about to be replaced does not answer.

        What is taken in memory here would be lost with the process after it was acknowledged. So the call
        waits for the end, and whoever made it asks the successor, as of any actor that ends during a call.
        """
        async with self._turn:
            if not self._done.is_set():
                yield
                return
        await asyncio.Event().wait()

    async def _present(self) -> ClusterRow | None:
        """Read the cluster's row, after taking this incarnation's number."""
        if self._incarnation is None:
            self._incarnation = await next_epoch(self._database, SEAL_STATE)
        row = await load_cluster(self._database)
        if row is not None and self._slots_of != row.root_version:
            self._slots = tuple(await load_slots(self._database))
            sets = deciding(self._slots)
            if self._machine.phase is Phase.UNINITIALISED:
                self._machine = self._machine.initialised(sets)
            else:
                self._machine = self._machine.with_slots(sets)
            self._slots_of = row.root_version
        if row is not None:
            self._ask_anew(row)
        return row

    def _ask_anew(self, row: ClusterRow) -> None:
        """Forget shares that were given before it was known that the database was put back."""
        wanted = (bool(row.rolled_back), row.timeline)
        if self._given_for not in {None, wanted} and self._machine.phase is Phase.UNSEALING:
            self._machine = self._machine.sealed()
        self._given_for = wanted

    async def _following(self, *, lenient: bool = False) -> ClusterRow:
        """Bring this process in step with the database: lock up, or get the root key back.

        Args:
            lenient: let a root key that cannot be looked for count as not here.
        """
        row = await self._present()
        if row is None:
            raise NotInitialised
        following = successor(self._next, row)
        if following is not None:
            self._next = None
            self._replace(following, row)
        held = self._held
        if held is not None and (row.sealed or not held.fits(row)):
            self._lock_up()
        if not row.sealed and self._held is None:
            try:
                nodes = await self._handles.live_nodes()
                holders = [self._handles.key_holder(node) for node in nodes]
                self._open(await recover(holders, self._psk, row, node=self._node), row)
                _log.info("%r has the root key of seal epoch %d again", self, row.seal_epoch)
            except Sealed:
                _log.debug("%r: every process that held the root key is gone", self)
            except Unavailable:
                if not lenient:
                    raise
        return row

    async def _unseal(
        self,
        row: ClusterRow,
        root_key: bytes,
        origin: Origin | None,
        operation: str = "sys.unseal",
        *,
        accepting: bool = False,
    ) -> tuple[RootKey, ClusterRow]:
        root = proven(root_key, row)
        try:
            if not accepting:
                await self._compare(row, root, origin, operation)
            await self._journal.record(origin, operation, "intent")
            reached: Mapping[str, Any] = {}
            if accepting:
                root.epoch, reached = await self._accepted(row, root)
            else:
                root.epoch = await self._committed(
                    commit_unsealed(self._database, root.reveal(), self._psk, epoch=self._incarnation)
                )
        except BaseException:
            root.wipe()
            raise
        row = replace(row, sealed=False, seal_epoch=root.epoch)
        self._open(root, row)
        try:
            await self._adopt(row)
            detail = {"epoch": root.epoch, "timeline": row.timeline, **reached}
            await self._journal.record(origin, operation, "done", detail=detail)
        except Unavailable:
            # It is unsealed, and the intent is written down; what was not adopted is adopted later.
            _log.warning("the ledger could not be written after the unseal")
        return root, row

    async def _compare(self, row: ClusterRow, root: RootKey, origin: Origin | None, operation: str) -> None:
        """Compare the database with this node's witness; one that was put back is not unsealed.

        Raises:
            PutBack: it was. Shares that were given are forgotten: they were not given to accept that.
            Unavailable: that cannot be told.
        """
        if self._witness is None:
            return
        try:
            found = await self._witness.against(self._database, row, root)
        except Misconfigured as exc:
            raise Unavailable(str(exc)) from exc
        if found is None:
            return
        self._machine = self._machine.sealed()
        await self._journal.record(origin, operation, "refused", reason=found)
        await commit_rolled_back(self._database, found, known=self._witness.timeline)
        raise PutBack

    async def _accepted(self, row: ClusterRow, root: RootKey) -> tuple[int, Mapping[str, Any]]:
        """Commit that a restore is accepted; return the seal epoch, and what the ledger keeps of it."""
        assert self._incarnation is not None
        keyring = root.keyring(row)
        try:
            accepted = await self._committed(
                commit_accepted(
                    self._database,
                    root.reveal(),
                    keyring,
                    self._psk,
                    writer=SEAL_STATE,
                    epoch=self._incarnation,
                )
            )
        finally:
            keyring.wipe()
        self._incarnation = accepted.incarnation
        return accepted.seal_epoch, accepted.floors

    async def _committed(self, commit: Awaitable[T]) -> T:
        """Await a commit of the seal; a newer incarnation's existence ends this one."""
        try:
            return await commit
        except Stale as exc:
            self._lock_up()
            self._done.set()
            raise Unavailable("this SealState was replaced by a newer one") from exc

    def _open(self, root: RootKey, row: ClusterRow) -> None:
        self._held = root
        self._journal.signed_with = root, row
        self._machine = self._machine.unsealed()
        self._recipient = Recipient()
        self._adopted = False

    def _replace(self, root: RootKey, row: ClusterRow) -> None:
        """Let another root key of the same seal epoch take over. Nothing that was begun goes on."""
        if self._held is not None:
            self._held.wipe()
        self._held = root
        self._journal.signed_with = root, row
        self._ceremonies.clear()
        self._recipient = Recipient()

    def _lock_up(self) -> None:
        self._ceremonies.clear()
        if self._held is not None:
            self._journal.signed_with = None
            self._held.wipe()
            self._held = None
        if self._next is not None:
            self._next.wipe()
            self._next = None
        if self._machine.phase is not Phase.UNINITIALISED:
            self._machine = self._machine.sealed()
        self._recipient = Recipient()

    async def _adopt(self, row: ClusterRow) -> None:
        if not self._adopted and self._held is not None and not row.sealed:
            await self._journal.adopt(self._held, row)
            self._adopted = True

    def _described(self, row: ClusterRow) -> dict[str, object]:
        status = described(
            row,
            self._slots,
            sealed=self._held is None,
            progress=self._machine.progress,
            nonce=self._machine.nonce,
        )
        slot = self._machine.slot
        if slot is not None:
            # Those of the set whose shares are being given.
            status = replace(status, threshold=slot.threshold, shares=slot.shares)
        return asdict(status)
