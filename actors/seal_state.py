"""SealState: the cluster's seal. The one process that opens the root key and the one that seals.

The transitions are in :mod:`secrethub.seal.state`, the commits in
:mod:`secrethub.operations.seal_lifecycle`; this is what calls them in the right order: write down what
is going to happen, commit it, adopt it here, then tell others.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from dataclasses import asdict, replace

from actors.handles.keys import INITIALISE_INFO, SHARE_INFO
from actors.handles.protocol import Handles
from actors.handles.seal import init_message
from actors.pulse import pulse
from actors.root_key import RootKey, hand_out, proven, recover, sealed_root, take_back
from actors.seal_journal import SealJournal
from actors.seal_making import make_cluster
from actors.tree import SEAL_STATE
from secrethub.audit.event import Origin
from secrethub.clock import Clock
from secrethub.crypto.sealed_box import Recipient, check_proof, seal_to
from secrethub.engines.runtime import SealStatus
from secrethub.errors import (
    Conflict,
    DecryptionFailed,
    NotInitialised,
    Sealed,
    Stale,
    Unavailable,
    WrongShare,
)
from secrethub.operations.seal_lifecycle import (
    ClusterRow,
    RootKeyType,
    commit_sealed,
    commit_unsealed,
    load_cluster,
    load_slots,
    next_epoch,
)
from secrethub.seal.state import Opened, Phase, SealMachine
from secrethub.storage.database import Database

_log = logging.getLogger(__name__)


class SealState:
    """The seal state machine of the cluster.

    Promise: the database decides whether the cluster is sealed. A restart asks a key-holder for the
    root key and seals nothing; a storage failure is Unavailable and changes nothing; "not initialised"
    is said only when the database answered that there is no cluster. What is done to the seal is in
    the ledger before it happens. Of several incarnations only the newest can commit. Every call may
    be repeated.
    """

    def __init__(
        self,
        *,
        node: str,
        database: Database,
        handles: Handles,
        psk: bytes,
        clock: Clock,
        dev: bool = False,
        root_key_type: RootKeyType = "ecdsa-p384",
        pulse: float = 2.0,
    ) -> None:
        """Begin without keys.

        Args:
            node: this node's name.
            database: the cluster's.
            handles: where the key-holders are.
            psk: pre-shared key of the cluster.
            clock: the time.
            dev: whether a cluster made here is for development.
            root_key_type: of its root CA.
            pulse: seconds between looks at the database.
        """
        self._node = node
        self._database = database
        self._handles = handles
        self._psk = psk
        self._clock = clock
        self._dev = dev
        self._root_key_type: RootKeyType = root_key_type
        self._pulse = pulse
        self._incarnation: int | None = None
        self._machine = SealMachine()
        self._held: RootKey | None = None
        self._recipient = Recipient()
        self._journal = SealJournal(database, node=node)
        self._adopted = True
        self._made: tuple[bytes, bytes] | None = None
        self._turn = asyncio.Lock()
        self._done = asyncio.Event()

    def __repr__(self) -> str:
        return f"SealState(node={self._node})"

    async def public_key(self) -> bytes:
        """Return the public key that shares are sealed to. It changes with every finished attempt."""
        return self._recipient.public

    async def initialise(
        self, shares: int, threshold: int, recipient_public: bytes, proof: bytes, origin: Origin | None = None
    ) -> bytes:
        """Make the cluster.

        Returns:
            The shares and the root token (:func:`actors.handles.seal.init_message`), sealed to
            ``recipient_public``. The cluster stays sealed.

        Raises:
            PermissionDenied: the requester does not hold the pre-shared key.
            InvalidRequest: impossible numbers.
            Conflict: there is a cluster already.
            Unavailable: the database does not answer.
        """
        check_proof(self._psk, recipient_public, INITIALISE_INFO, proof)
        async with self._turn:
            if self._made is not None and self._made[0] == recipient_public:
                return self._made[1]  # the answer to the same request was lost
            made = await make_cluster(
                self._database,
                self._journal,
                origin,
                shares,
                threshold,
                self._clock.now(),
                exists=await self._present() is not None,
                dev=self._dev,
                root_key_type=self._root_key_type,
            )
            box = seal_to(
                recipient_public,
                init_message(made.shares, made.root_token, made.cluster_id),
                self._psk,
                INITIALISE_INFO,
            )
            self._made = (recipient_public, box)
            return box

    async def submit_share(self, box: bytes, origin: Origin | None = None) -> dict[str, object]:
        """Take one unseal share, sealed to :meth:`public_key`; the last one unseals the cluster.

        Returns:
            What :meth:`status` says afterwards.

        Raises:
            Stale: the box was sealed to a former key pair, or without the pre-shared key.
            NotInitialised: there is no cluster.
            WrongShare: malformed, unknown, or given already; the other shares stay given.
            Unavailable: the database does not answer; the share may be given again.
        """
        async with self._turn:
            row = await self._following(lenient=True)
            if self._held is not None:
                await self._journal.record(origin, "sys.unseal", "ignored", reason="unsealed already")
                return self._described(row)
            try:
                share = self._recipient.open(box, self._psk, SHARE_INFO)
            except DecryptionFailed as exc:
                raise Stale("the share is not sealed to the present key; ask for it again") from exc
            try:
                after = self._machine.feed(share)
            except (WrongShare, DecryptionFailed) as exc:
                reason = exc.reason if isinstance(exc, WrongShare) else exc.code
                await self._journal.record(origin, "sys.unseal", "refused", reason=reason)
                raise
            if not isinstance(after, Opened):
                detail = {"progress": after.progress, "nonce": after.nonce}
                await self._journal.record(origin, "sys.unseal", "progress", detail=detail)
                self._machine = after
                return self._described(row)
            root, row = await self._unseal(row, after, origin)
            described = self._described(row)
        await hand_out(self._handles, self._psk, root, row)
        return described

    async def reset(self, origin: Origin | None = None) -> None:
        """Forget the shares given so far.

        Raises:
            NotInitialised: there is no cluster.
            Conflict: the cluster is unsealed.
            Unavailable: the database does not answer.
        """
        async with self._turn:
            await self._following(lenient=True)
            try:
                after = self._machine.reset()
            except Conflict as exc:
                await self._journal.record(origin, "sys.unseal-reset", "refused", reason=exc.code)
                raise
            await self._journal.record(
                origin, "sys.unseal-reset", "done", detail={"progress": self._machine.progress}
            )
            self._machine = after
            self._recipient = Recipient()

    async def refuse(self, operation: str, reason: str, origin: Origin) -> None:
        """Write down what a gateway refused by itself, which may have no key to sign with.

        Raises:
            Unavailable: it could not be made durable.
        """
        async with self._turn:
            await self._journal.record(origin, operation, "refused", reason=reason)

    async def status(self) -> dict[str, object]:
        """Return the fields of :class:`secrethub.engines.runtime.SealStatus`.

        Raises:
            Unavailable: the database does not answer, or it says unsealed and the root key is neither
                here nor known to be lost.
        """
        async with self._turn:
            if await self._present() is None:
                return asdict(SealStatus(initialised=False, sealed=True))
            return self._described(await self._following())

    async def seal(self, origin: Origin | None = None) -> None:
        """Seal the cluster: commit it, wipe every holder that can be reached, then this one.

        The holders and SealState itself are replaced by fresh processes afterwards.

        Raises:
            NotInitialised: there is no cluster.
            Unavailable: it could not be written down or committed; nothing is wiped, call again.
        """
        async with self._turn:
            row = await self._present()
            if row is None:
                raise NotInitialised
            if row.sealed and self._held is None:
                await take_back(self._handles, row.seal_epoch)  # the answer to the same call was lost
                return
            epoch = row.seal_epoch
            if not row.sealed:
                await self._journal.record(origin, "sys.seal", "intent")
                epoch = await self._committed(commit_sealed(self._database, epoch=self._incarnation))
            self._lock_up()
            try:
                await self._journal.record(origin, "sys.seal", "done", detail={"epoch": epoch})
            finally:
                await take_back(self._handles, epoch)
                self._done.set()

    async def root(self, recipient_public: bytes, proof: bytes, node: str, epoch: int) -> bytes:
        """Return the root key, sealed to a key-holder; only what is here is given.

        Raises:
            PermissionDenied: no proof; nothing is given.
            NotInitialised: there is no cluster.
            Sealed: the cluster is sealed, or the key is not here.
            Stale: the database is in another seal epoch.
            Unavailable: the database does not answer.
        """
        row = await load_cluster(self._database)
        if row is None:
            raise NotInitialised
        return sealed_root(
            self._held, row, self._psk, public=recipient_public, proof=proof, node=node, epoch=epoch
        )

    async def health(self) -> dict[str, object]:
        """Tell what this incarnation is and holds."""
        return {
            "name": SEAL_STATE,
            "node": self._node,
            "pid": os.getpid(),
            "incarnation": self._incarnation,
            "phase": self._machine.phase.value,
            "holds": self._held is not None,
        }

    async def hold(self) -> None:
        """Keep in step with the database until closed or, after a seal, until to be replaced."""
        await pulse(self._keep_up, self._done, self._pulse)

    async def close(self) -> None:
        """Wipe the key and let go of the database."""
        self._lock_up()
        self._done.set()
        await self._database.close()

    # -- one transition at a time, always under self._turn ----------------------------------------

    async def _present(self) -> ClusterRow | None:
        """Read the cluster's row, after taking this incarnation's number."""
        if self._incarnation is None:
            self._incarnation = await next_epoch(self._database, SEAL_STATE)
        row = await load_cluster(self._database)
        if row is not None and self._machine.phase is Phase.UNINITIALISED:
            self._machine = self._machine.initialised(tuple(await load_slots(self._database)))
        return row

    async def _following(self, *, lenient: bool = False) -> ClusterRow:
        """Bring this process in step with the database: lock up, or get the root key back.

        Args:
            lenient: let a root key that cannot be looked for count as not here.
        """
        row = await self._present()
        if row is None:
            raise NotInitialised
        held = self._held
        if held is not None and (row.sealed or held.epoch != row.seal_epoch):
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

    async def _keep_up(self) -> None:
        async with self._turn:
            if await self._present() is not None:
                await self._adopt(await self._following())

    async def _unseal(
        self, row: ClusterRow, opened: Opened, origin: Origin | None
    ) -> tuple[RootKey, ClusterRow]:
        root = proven(opened.root_key, row)
        try:
            await self._journal.record(origin, "sys.unseal", "intent")
            root.epoch = await self._committed(
                commit_unsealed(self._database, root.reveal(), epoch=self._incarnation)
            )
        except BaseException:
            root.wipe()
            raise
        row = replace(row, sealed=False, seal_epoch=root.epoch)
        self._open(root, row)
        try:
            await self._adopt(row)
            await self._journal.record(origin, "sys.unseal", "done", detail={"epoch": root.epoch})
        except Unavailable:
            # It is unsealed, and the intent is written down; what was not adopted is adopted later.
            _log.warning("the ledger could not be written after the unseal")
        return root, row

    async def _committed(self, commit: Awaitable[int]) -> int:
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

    def _lock_up(self) -> None:
        if self._held is not None:
            self._journal.signed_with = None
            self._held.wipe()
            self._held = None
        if self._machine.phase is not Phase.UNINITIALISED:
            self._machine = self._machine.sealed()
        self._recipient = Recipient()

    async def _adopt(self, row: ClusterRow) -> None:
        if not self._adopted and self._held is not None and not row.sealed:
            await self._journal.adopt(self._held, row)
            self._adopted = True

    def _described(self, row: ClusterRow) -> dict[str, object]:
        slot = self._machine.slot
        return asdict(
            SealStatus(
                initialised=True,
                sealed=self._held is None,
                threshold=slot.threshold if slot is not None else 0,
                shares=slot.shares if slot is not None else 0,
                progress=self._machine.progress,
                nonce=self._machine.nonce,
                cluster_id=row.cluster_id,
                cluster_name=row.cluster_name,
            )
        )
