"""SealState: the cluster's seal. The one process that opens the root key and the one that seals.

The transitions are in :mod:`secrethub.seal.state`, the commits in
:mod:`secrethub.operations.seal_lifecycle`; this is what calls them in the right order: write down what
is going to happen, commit it, adopt it here, then tell others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import asdict

from actors.handles.keys import SHARE_INFO
from actors.handles.protocol import Handles
from actors.key_rotation import Asked, add_data_key
from actors.node_witness import NodeWitness
from actors.pulse import pulse
from actors.root_key import hand_out, sealed_root, take_back
from actors.seal_making import SealMaking
from actors.tree import SEAL_STATE
from secrethub.audit.event import Origin
from secrethub.clock import Clock
from secrethub.crypto.sealed_box import Recipient
from secrethub.engines.runtime import SealStatus
from secrethub.errors import (
    Conflict,
    DecryptionFailed,
    NotInitialised,
    PutBack,
    SecretHubError,
    Stale,
    WrongShare,
)
from secrethub.operations.seal_lifecycle import RootKeyType, commit_sealed, load_cluster
from secrethub.seal.key_services import KeyServices, NoKeyServices
from secrethub.seal.state import Authorised, Opened
from secrethub.storage.database import Database

_AUTO_SECONDS = 0.5
"""Between two looks whether a key service is to be asked."""


class SealState(SealMaking):
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
        services: KeyServices | None = None,
        witness: NodeWitness | None = None,
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
            services: keys of key services that may open slots; None for none.
            witness: what this node has seen of the database; None compares nothing.
            pulse: seconds between looks at the database.
        """
        super().__init__(
            node=node,
            database=database,
            handles=handles,
            psk=psk,
            clock=clock,
            services=services or NoKeyServices(),
            witness=witness,
        )
        self._dev = dev
        self._root_key_type = root_key_type
        self._pulse = pulse

    async def public_key(self) -> bytes:
        """Return the public key that shares are sealed to. It changes with every finished attempt."""
        return self._recipient.public

    async def submit_share(
        self, box: bytes, origin: Origin | None = None, *, accepting: bool = False
    ) -> dict[str, object]:
        """Take one unseal share, sealed to :meth:`public_key`; the last one unseals the cluster.

        Args:
            box: the share.
            origin: who gives it.
            accepting: with the last share, accept that the database was put back. Otherwise such a one
                stays sealed.

        Returns:
            What :meth:`status` says afterwards.

        Raises:
            Stale: the box was sealed to a former key pair, or without the pre-shared key.
            NotInitialised: there is no cluster.
            WrongShare: malformed, unknown, or given already; the other shares stay given.
            PutBack: the database was put back, and that was not to be accepted.
            Conflict: there is nothing to accept.
            Unavailable: the database does not answer; the share may be given again.
        """
        operation = "sys.accept-restore" if accepting else "sys.unseal"
        async with self._lasting_turn():
            row = await self._following(lenient=True)
            if accepting is not bool(row.rolled_back) and (accepting or self._held is None):
                refusal = Conflict("the database was not put back, as far as anybody knows")
                await self._journal.record(
                    origin, operation, "refused", reason=row.rolled_back or refusal.code
                )
                raise PutBack if row.rolled_back else refusal
            if self._held is not None:
                await self._journal.record(origin, operation, "ignored", reason="unsealed already")
                return self._described(row)
            try:
                share = self._recipient.open(box, self._psk, SHARE_INFO)
            except DecryptionFailed as exc:
                raise Stale("the share is not sealed to the present key; ask for it again") from exc
            try:
                after = self._machine.feed(share)
            except (WrongShare, DecryptionFailed) as exc:
                reason = exc.reason if isinstance(exc, WrongShare) else exc.code
                await self._journal.record(origin, operation, "refused", reason=reason)
                raise
            if isinstance(after, Authorised):
                await self._journal.record(origin, operation, "authorised")
                self._machine = self._machine.sealed()
            elif not isinstance(after, Opened):
                detail = {"progress": after.progress, "nonce": after.nonce}
                await self._journal.record(origin, operation, "progress", detail=detail)
                self._machine = after
                return self._described(row)
            else:
                root, row = await self._unseal(row, after.root_key, origin, operation, accepting=accepting)
                described = self._described(row)
        if isinstance(after, Authorised):
            await self._unseal_authorised(after.slot_id, operation, origin, accepting=accepting)
            described = await self.status()
        else:
            await hand_out(self._handles, self._psk, root, row)
        with contextlib.suppress(SecretHubError):
            # Whoever unsealed with new shares has them. What does not go now goes at another time.
            await self.settle(after.slot_id, origin)
        return described

    async def accept_share(self, box: bytes, origin: Origin | None = None) -> dict[str, object]:
        """Take one unseal share that also accepts that the database was put back (:meth:`submit_share`).

        The last one begins a timeline: no token and no SecretID of before is good any more.

        Raises:
            SecretHubError: as in :meth:`submit_share`.
        """
        return await self.submit_share(box, origin, accepting=True)

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

    async def seal(self, origin: Origin | None = None) -> list[str]:
        """Seal the cluster: commit it, wipe every holder that can be reached, then this one.

        The holders and SealState itself are replaced by fresh processes afterwards.

        Returns:
            The holders that did not say that they have dropped their keys.

        Raises:
            NotInitialised: there is no cluster.
            Unavailable: it could not be written down or committed; nothing is wiped, call again.
        """
        async with self._turn:
            row = await self._present()
            if row is None:
                raise NotInitialised
            if row.sealed and self._held is None:
                # The answer to the same call was lost.
                return await take_back(self._handles, row.seal_epoch)
            epoch = row.seal_epoch
            if not row.sealed:
                await self._journal.record(origin, "sys.seal", "intent")
                epoch = await self._committed(commit_sealed(self._database, epoch=self._incarnation))
            self._lock_up()
            try:
                await self._journal.record(origin, "sys.seal", "done", detail={"epoch": epoch})
            finally:
                missed = await take_back(self._handles, epoch)
                self._done.set()
            return missed

    async def rotate(self, after: int, origin: Origin | None = None) -> int:
        """Add a data key to the keyring, unless there is one after ``after``; return the newest's number.

        Raises:
            Sealed: the cluster is sealed, or the root key is not here.
            Conflict: it was sealed meanwhile; nothing happened.
            Unavailable: it could not be written down or committed, or that is unknown; call again.
        """
        async with self._turn:
            root, row = await self._opened()
            asked = Asked(after=after, origin=origin, now=self._clock.now(), incarnation=self._incarnation)
            return await self._committed(add_data_key(self._database, self._journal, root, row, asked))

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
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pulse(self._keep_up, self._done, self._pulse), name="seal-keep-up")
            tasks.create_task(pulse(self._unseal_by_itself, self._done, _AUTO_SECONDS), name="seal-auto")

    async def close(self) -> None:
        """Wipe the key and let go of the database."""
        self._lock_up()
        self._done.set()
        await self._database.close()

    async def _keep_up(self) -> None:
        async with self._turn:
            if await self._present() is not None:
                await self._adopt(await self._following())
