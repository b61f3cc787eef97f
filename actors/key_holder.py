"""KeyHolder: keeps the root key of its node's processes, and gives the keyring to the node's gateways.

It stands in for the notary while that is gone.

It parses no network input but checkpoints that agents keep, and these only after a gateway has found the
notary's signature on them. Who asks for keys must prove that it holds the cluster's pre-shared key, and is
answered in a sealed box. Before anything is given the database is asked whether the cluster is
unsealed and in which seal epoch: a holder that a ``seal`` did not reach gives nothing either.
"""

from __future__ import annotations

import asyncio
import logging
import os

from actors.checkpointing import StandIn
from actors.handles.keys import INSTALL, KEYRING, PREPARE, checked
from actors.handles.protocol import Handles
from actors.node_witness import NodeWitness
from actors.pulse import pulse
from actors.root_key import RootKey, proven, recover, sealed_root, successor
from actors.tree import KEY_HOLDER
from secrethub.audit.witness import unpack
from secrethub.crypto.sealed_box import Recipient, info, seal_to
from secrethub.errors import (
    IntegrityFailure,
    Misconfigured,
    NotInitialised,
    PermissionDenied,
    PutBack,
    Sealed,
    Stale,
    Unavailable,
)
from secrethub.storage.database import Database
from secrethub.storage.restore import commit_rolled_back
from secrethub.storage.seal_store import ClusterRow, load_cluster

_NOTARY_SECONDS = 0.8
"""Between two looks at the notary's work; as often as the notary itself looks at the streams."""

_log = logging.getLogger(__name__)


class KeyHolder:
    """One per node.

    Promise: the root key leaves it only in sealed boxes, to processes that hold the pre-shared key,
    while the database says that the cluster is unsealed in the epoch of the key. A database that does
    not answer takes no key away. A fresh holder fetches the key from SealState or another holder.
    Every call may be repeated.
    """

    def __init__(
        self,
        *,
        node: str,
        database: Database,
        handles: Handles,
        psk: bytes,
        witness: NodeWitness,
        pulse: float = 2.0,
    ) -> None:
        """Begin without keys.

        Args:
            node: this node's name.
            database: the cluster's.
            handles: where SealState and the other holders are found.
            psk: the cluster's pre-shared key.
            witness: remembers the newest checkpoint outside the database.
            pulse: seconds between two looks at the database while nobody asks.
        """
        self._node = node
        self._database = database
        self._handles = handles
        self._psk = psk
        self._pulse = pulse
        self._recipient = Recipient()
        self._cluster_id: str | None = None
        self._held: RootKey | None = None
        self._next: RootKey | None = None
        self._dropped = 0
        self._stand_in = StandIn(database)
        self._witness = witness
        self._said = ""
        self._fetching = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._done = asyncio.Event()

    def __repr__(self) -> str:
        return f"KeyHolder(node={self._node})"

    async def public_key(self) -> bytes:
        """Return the public key that the root key may be sealed to."""
        return self._recipient.public

    async def keyring(self, recipient_public: bytes, proof: bytes, node: str, epoch: int) -> bytes:
        """Return the keyring, sealed to ``recipient_public``.

        Args:
            recipient_public: the requester's fresh X25519 key.
            proof: shows that the requester holds the pre-shared key.
            node: the requester's node.
            epoch: the seal epoch that the requester believes in.

        Raises:
            PermissionDenied: no proof; nothing else was looked at.
            NotInitialised: there is no cluster.
            Sealed: the cluster is sealed, or nobody has the root key.
            Stale: the database is in another seal epoch.
            Unavailable: the database does not answer, or those who may have the key do not.
        """
        if self._cluster_id is None:
            self._cluster_id = (await self._present()).cluster_id
        bound = checked(
            self._psk,
            recipient_public,
            proof,
            cluster=self._cluster_id,
            node=node,
            purpose=KEYRING,
            epoch=epoch,
        )
        row = await self._unsealed()
        if epoch != row.seal_epoch:
            raise Stale("the seal epoch has moved on")
        root = await self._root(row)
        if not self._witness.looked:
            # Nobody gets keys here before it is clear that the database was not put back.
            await self._examine(row)
        keyring = root.keyring(row)
        try:
            return seal_to(recipient_public, keyring.export(), self._psk, bound)
        finally:
            keyring.wipe()

    async def root(self, recipient_public: bytes, proof: bytes, node: str, epoch: int) -> bytes:
        """Return the root key, sealed to SealState or another holder; only what is here is given.

        Raises:
            PermissionDenied, NotInitialised, Sealed, Stale, Unavailable: as in :meth:`keyring`.
        """
        row = await self._present()
        self._follow(row)
        return sealed_root(
            self._held, row, self._psk, public=recipient_public, proof=proof, node=node, epoch=epoch
        )

    async def install_root(self, box: bytes) -> None:
        """Take the root key of the present seal epoch from a box sealed to :meth:`public_key`.

        Raises:
            DecryptionFailed: not sealed by a holder of the pre-shared key, for this node and the
                present epoch; or not the cluster's root key.
            NotInitialised, Sealed, Unavailable: as in :meth:`keyring`.
        """
        row = await self._unsealed()
        bound = info(row.cluster_id, self._node, INSTALL, row.seal_epoch)
        self._hold(proven(self._recipient.open(box, self._psk, bound), row))

    async def prepare_root(self, box: bytes, version: int) -> None:
        """Keep a root key that is about to follow the present one; it is used once the database says so.

        Raises:
            DecryptionFailed: not sealed by a holder of the pre-shared key, for this node, the present
                epoch and this version.
            Stale: it is not the next one.
            NotInitialised, Sealed, Unavailable: as in :meth:`keyring`.
        """
        row = await self._unsealed()
        bound = info(row.cluster_id, self._node, f"{PREPARE}/{version}", row.seal_epoch)
        key = self._recipient.open(box, self._psk, bound)
        if version != row.root_version + 1:
            raise Stale("the root key has moved on")
        self._forget_next()
        self._next = RootKey(key, row.seal_epoch, version)

    async def drop(self, epoch: int) -> None:
        """Wipe the root key because of the seal that began ``epoch``, and ask to be replaced.

        It returns when a checkpoint that is being made here has ended, for that has the notary's key.
        """
        self._drop(epoch)
        async with self._turn:
            if self._held is None:
                self._stand_in.drop()

    async def examine(self) -> None:
        """Compare the database with what this node has seen of it.

        Raises:
            PutBack: this node has seen more; the cluster is sealed.
            Misconfigured, IntegrityFailure: that cannot be told.
            NotInitialised, Unavailable: as in :meth:`keyring`.
        """
        await self._examine(await self._present())

    async def testify(self, witness: bytes) -> None:
        """Compare the database with a checkpoint that an agent keeps.

        Args:
            witness: a checkpoint (``audit/witness.py``). Who has it does not matter: what the notary has
                signed was in the database.

        Raises:
            PutBack: the agent has seen more; the cluster is sealed.
            PermissionDenied: it is no checkpoint of this cluster.
            Sealed: the cluster is sealed, or the root key is not here.
            Misconfigured, IntegrityFailure: it cannot be told.
            NotInitialised, Unavailable: as in :meth:`keyring`.
        """
        try:
            signed = unpack(witness)
        except ValueError as exc:
            raise PermissionDenied(str(exc)) from exc
        row = await self._unsealed()
        await self._witness.hear(self._database, row, await self._root(row), signed)
        await self._examine(row)

    async def health(self) -> dict[str, object]:
        """Tell whether the root key is here."""
        held = self._held
        return {
            "name": KEY_HOLDER,
            "node": self._node,
            "pid": os.getpid(),
            "holds": held is not None,
            "epoch": held.epoch if held is not None else None,
            "notary": self._stand_in.active,
            "trouble": self._said,
        }

    async def hold(self) -> None:
        """Keep in step with the database until closed or, after a seal, until to be replaced."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pulse(self._keep_up, self._done, self._pulse), name="keep-up")
            tasks.create_task(pulse(self._look_after_notary, self._done, _NOTARY_SECONDS), name="stand-in")

    async def close(self) -> None:
        """Wipe the key and let go of the database."""
        if self._held is not None:
            self._held.wipe()
            self._held = None
        self._forget_next()
        self._stand_in.drop()
        self._done.set()
        await self._database.close()

    async def _look_after_notary(self) -> None:
        """Make checkpoints while nobody else does."""
        async with self._turn:
            await self._in_turn()

    async def _in_turn(self) -> None:
        if self._held is None:
            self._stand_in.drop()
            return
        row = await self._present()
        held = self._held
        if row.sealed or held is None or not held.fits(row):
            self._stand_in.drop()
        else:
            await self._stand_in.step(held, row)

    async def _examine(self, row: ClusterRow) -> None:
        """Compare the database with this node's witness; one that was put back is sealed.

        Raises:
            PutBack: the witness contradicts the database.
            Misconfigured: the witness cannot be read or written.
            Unavailable: the database does not answer.
        """
        try:
            found = await self._witness.look(self._database, row, self._held)
        except (Misconfigured, IntegrityFailure) as exc:
            self._say(str(exc))
            raise
        if found is None:
            self._say("")
            return
        self._say(f"the database is {found} than what this node has seen of it")
        if not row.rolled_back:
            await commit_rolled_back(self._database, found, known=self._witness.timeline)
        raise PutBack

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._said:
            _log.error("%r: %s", self, trouble)
        self._said = trouble

    async def _keep_up(self) -> None:
        row = await load_cluster(self._database)
        if row is None:
            return
        try:
            await self._examine(row)
        except PutBack:
            row = await self._present()
        except (IntegrityFailure, Misconfigured):
            _log.debug("%r has said what is wrong", self)
        if row.sealed:
            self._drop(row.seal_epoch)
        elif self._held is None or not self._held.fits(row):
            await self._root(row)

    async def _present(self) -> ClusterRow:
        row = await load_cluster(self._database)
        if row is None:
            raise NotInitialised
        return row

    async def _unsealed(self) -> ClusterRow:
        row = await self._present()
        if row.sealed:
            self._drop(row.seal_epoch)
            raise PutBack if row.rolled_back else Sealed
        return row

    async def _root(self, row: ClusterRow) -> RootKey:
        """Return the key of the row's epoch, from here or from a peer."""
        async with self._fetching:
            self._follow(row)
            if self._held is not None and self._held.fits(row):
                return self._held
            givers = [self._handles.seal_state()]
            silent = False
            try:
                nodes = await self._handles.live_nodes()
                givers += [self._handles.key_holder(node) for node in nodes if node != self._node]
            except Unavailable:
                silent = True
            try:
                found = await recover(givers, self._psk, row, node=self._node)
            except Sealed:
                if silent:
                    raise Unavailable("not every key-holder could be asked") from None
                raise
            self._hold(found)
            _log.info("%r has the root key of seal epoch %d again", self, row.seal_epoch)
            return found

    def _hold(self, root: RootKey) -> None:
        if root.epoch < self._dropped:
            # It was on its way here when the cluster was sealed.
            root.wipe()
            raise Stale("the seal epoch has moved on")
        if self._held is not None:
            if (self._held.epoch, self._held.version) > (root.epoch, root.version):
                root.wipe()
                raise Stale("the seal epoch has moved on")
            self._held.wipe()
        self._held = root

    def _follow(self, row: ClusterRow) -> None:
        """Let the prepared root key take over if it has become the cluster's."""
        following = successor(self._next, row)
        if following is not None:
            self._next = None
            self._hold(following)

    def _forget_next(self) -> None:
        if self._next is not None:
            self._next.wipe()
            self._next = None

    def _drop(self, epoch: int) -> None:
        """Wipe a key that is older than ``epoch``: what was read of the database may be old by now.

        A process that held a key is replaced, for Python may keep copies of it.
        """
        self._dropped = max(self._dropped, epoch)
        self._forget_next()
        if self._held is not None and self._held.epoch < epoch:
            self._held.wipe()
            self._held = None
            self._stand_in.drop()
            self._done.set()
