"""SealState's slots of key services: adding and trying them, and opening the root key by them.

A key service is asked outside the turn: however long it takes, the seal goes on answering. It is asked at
these times only: when a slot is made or tried, when the cluster is unsealed in the database and nobody
holds the root key any more, and when enough recovery shares were given to a sealed cluster. So a service
that is away takes nothing from a running cluster, and a cluster that was sealed on purpose stays sealed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from actors.root_key import PEER_SECONDS, hand_out, proven
from actors.seal_ceremonies import SealCeremonies
from secrethub.audit.event import Origin, Outcome
from secrethub.engines.ceremonies import Progress, SlotInfo
from secrethub.errors import (
    Conflict,
    DecryptionFailed,
    IntegrityFailure,
    InvalidRequest,
    Misconfigured,
    NotFound,
    PutBack,
    SecretHubError,
    Unavailable,
)
from secrethub.seal.attempts import Attempts
from secrethub.seal.kms_slots import kms_secret, make_kms_slot
from secrethub.seal.slots import KmsKind, KmsSlot, ShamirSlot, Slot, kind_of, open_with
from secrethub.seal.warrant import is_unsealed
from secrethub.seal.wishes import AddSlot
from secrethub.storage.seal_slots import load_authentic_slots
from secrethub.storage.seal_store import ClusterRow

_log = logging.getLogger(__name__)


class SealOpenings(SealCeremonies):
    """The calls about slots. Each may be repeated."""

    _attempts = Attempts()
    """To unseal by key services."""
    _alone = False
    """Whether it was said that no key-holder answers."""

    async def slots(self) -> list[SlotInfo]:
        """Return the slots, oldest first.

        Raises:
            Sealed: the cluster is sealed.
            IntegrityFailure: a slot's row is not authentic.
            Unavailable: the database does not answer.
        """
        async with self._turn:
            root, _ = await self._opened()
            return [_info(slot) for slot in await load_authentic_slots(self._database, root.reveal())]

    async def add_slot(self, kind: KmsKind, service: str, origin: Origin | None = None) -> Progress:
        """Ask a key service to wrap a new slot's secret, and begin the attempt to add the slot.

        Raises:
            Sealed: the cluster is sealed.
            Conflict: another change of the slots is under way.
            InvalidRequest: this node's settings have no such key, or it cannot be used.
            Unavailable: the service or the database does not answer.
        """
        async with self._turn:
            _, row = await self._opened()
        if self._services.kinds().get(service) != kind:
            raise InvalidRequest(f"the nodes' settings have no {kind} key called {service!r}")
        slot = await self._new_slot(row.cluster_id, kind, service)
        return await self.start("slots", AddSlot(slot=slot), origin)

    async def try_slot(self, slot_id: str, origin: Origin | None = None) -> None:
        """Show that a key service opens its slot now. Nothing is changed.

        Raises:
            Sealed: the cluster is sealed.
            NotFound: there is no such slot.
            InvalidRequest: its secret is with people, or this node's settings do not have the key.
            Conflict: the service has another key.
            Unavailable: the service or the database does not answer.
        """
        async with self._turn:
            root, _ = await self._opened()
            found = await load_authentic_slots(self._database, root.reveal())
        slot = next((slot for slot in found if slot.slot_id == slot_id), None)
        if slot is None:
            raise NotFound
        if isinstance(slot, ShamirSlot):
            raise InvalidRequest("a service can be tried; that people have their shares, a rekey shows")
        outcome: Outcome = "failed"
        try:
            await kms_secret(self._services, slot)
            outcome = "done"
        except Misconfigured as exc:
            raise InvalidRequest(str(exc)) from exc
        except DecryptionFailed as exc:
            raise Conflict(str(exc)) from exc
        finally:
            async with self._turn:
                await self._journal.record(origin, "sys.slot-test", outcome, detail={"slot": slot_id})

    async def _new_slot(self, cluster_id: str, kind: KmsKind, service: str) -> KmsSlot:
        """Have a key service wrap a new slot's secret."""
        try:
            return await make_kms_slot(self._services, cluster_id, kind, service)
        except (Misconfigured, DecryptionFailed) as exc:
            raise InvalidRequest(str(exc)) from exc

    # -- opening ----------------------------------------------------------------------------------

    async def _unseal_by_itself(self) -> None:
        """Open a cluster that nobody sealed, when every process that held its root key is gone."""
        if self._held is not None or not self._attempts.due(self._clock.monotonic()):
            return
        async with self._turn:
            if await self._present() is None:
                return
            row = await self._following()
            if row.sealed or row.rolled_back or self._held is not None:
                self._attempts = Attempts()
                return
            slots = self._openable()
        if not slots:
            return
        try:
            if await self._surely_unsealed(row):
                await self._open_by(await self._asked(slots), row)
        except SecretHubError as exc:
            now = self._clock.monotonic()
            self._attempts = self._attempts.failed(now, random.random())  # noqa: S311 - jitter
            pause = self._attempts.due_at - now
            _log.warning("%r: no key service opens the cluster: %s; next in %.1f s", self, exc, pause)
            if self._attempts.failures == 1:
                async with self._turn:
                    await self._journal.record(None, "sys.auto-unseal", "failed", reason=str(exc))

    async def _surely_unsealed(self, row: ClusterRow) -> bool:
        """Check that the cluster was unsealed by us, and that nothing later is known.

        Returns:
            False while no key-holder answers that could know: when everything starts, they come later.

        Raises:
            IntegrityFailure: somebody else wrote that it is unsealed.
            PutBack: a node has seen a later seal than the database tells of.
            Unavailable: no key-holder can read what its node has seen.
        """
        if not is_unsealed(self._psk, row.cluster_id, row.seal_epoch, row.unsealed_mac):
            raise IntegrityFailure("cluster", "sealed", "this cluster did not write that it is unsealed")
        nodes = await self._handles.live_nodes()
        looks = [self._handles.key_holder(node).call("examine", timeout=PEER_SECONDS) for node in nodes]
        said = await asyncio.gather(*looks, return_exceptions=True)
        refused = next((one for one in said if isinstance(one, PutBack)), None)
        if refused is not None:
            raise refused
        if any(not isinstance(one, BaseException) for one in said):
            self._alone = False
            return True
        if all(isinstance(one, Unavailable) for one in said):
            if not self._alone:
                _log.info("%r asks no key service before a key-holder answers", self)
            self._alone = True
            return False
        raise Unavailable("no key-holder can compare the database with what its node has seen")

    async def _unseal_authorised(
        self, authorised: str, operation: str, origin: Origin | None, *, accepting: bool
    ) -> None:
        """Open a sealed cluster for which enough recovery shares were given.

        Raises:
            IntegrityFailure: the recovery shares are not the cluster's own.
            Unavailable: no key service opens it.
        """
        row = await self._present()
        slots = self._openable()
        if row is None or not slots:
            raise Unavailable("the shares are right, but this node's settings have no key that opens a slot")
        root_key = await self._asked(slots)
        await self._open_by(
            root_key, row, authorised=authorised, operation=operation, origin=origin, accepting=accepting
        )

    async def _open_by(
        self,
        root_key: bytes,
        before: ClusterRow,
        *,
        authorised: str | None = None,
        operation: str = "sys.auto-unseal",
        origin: Origin | None = None,
        accepting: bool = False,
    ) -> None:
        """Unseal with a root key that a service opened, if the seal is still as it was."""
        async with self._turn:
            row = await self._following(lenient=True)
            same = (row.sealed, row.seal_epoch, row.root_version) == (
                before.sealed,
                before.seal_epoch,
                before.root_version,
            )
            if self._held is not None or not same:
                return
            proven(root_key, row).wipe()
            # Only now it can be told whether the recovery shares that were given are the cluster's own.
            found = await load_authentic_slots(self._database, root_key)
            if authorised is not None and not any(slot.slot_id == authorised for slot in found):
                raise IntegrityFailure("seal_slots", authorised, "the recovery shares were replaced")
            root, row = await self._unseal(row, root_key, origin, operation, accepting=accepting)
        await hand_out(self._handles, self._psk, root, row)

    def _openable(self) -> list[KmsSlot]:
        """Return the slots that this node's settings have a key for."""
        kinds = self._services.kinds()
        return [
            slot for slot in self._slots if isinstance(slot, KmsSlot) and kinds.get(slot.service) == slot.kind
        ]

    async def _asked(self, slots: Sequence[KmsSlot]) -> bytes:
        """Return the root key from the first service that gives its slot's secret; all are asked at once."""

        async def ask(slot: KmsSlot) -> bytes:
            return open_with(slot, await kms_secret(self._services, slot))

        asked = [asyncio.create_task(ask(slot)) for slot in slots]
        reasons = []
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except SecretHubError as exc:
                    reasons.append(str(exc))
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise Unavailable("; ".join(sorted(reasons)))


def _info(slot: Slot) -> SlotInfo:
    if isinstance(slot, KmsSlot):
        return SlotInfo(slot_id=slot.slot_id, kind=slot.kind, service=slot.service)
    return SlotInfo(
        slot_id=slot.slot_id,
        kind=kind_of(slot),
        shares=slot.shares,
        threshold=slot.threshold,
        leaving=slot.leaving,
    )
