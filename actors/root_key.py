"""The root key in a process that may hold it, and how it comes to and goes from the others.

Only SealState and the key-holders import this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from actors.handles.keys import ROOT, checked, fetch_root, install_root
from actors.handles.protocol import Handle, Handles
from secrethub.crypto.keyring import Keyring, unwrap
from secrethub.crypto.sealed_box import seal_to
from secrethub.errors import DecryptionFailed, Sealed, SecretHubError, Stale, Unavailable
from secrethub.sensitive import wipe
from secrethub.storage.seal_store import ClusterRow

PEER_SECONDS = 3.0
"""How long one process is waited for when keys are handed over."""

_log = logging.getLogger(__name__)


class RootKey:
    """The root key of a seal epoch. Hidden in ``repr``, refuses pickling, wiped when let go.

    Attributes:
        epoch: the seal epoch under which it came; it is used in no other.
        version: which of the cluster's root keys it is.
    """

    __slots__ = ("_key", "epoch", "version")

    def __init__(self, key: bytes, epoch: int, version: int) -> None:
        self._key = bytearray(key)
        self.epoch = epoch
        self.version = version

    def fits(self, row: ClusterRow) -> bool:
        """Tell whether this is the key of the row's seal epoch and version."""
        return (self.epoch, self.version) == (row.seal_epoch, row.root_version)

    def reveal(self) -> bytes:
        """Return the key.

        Raises:
            Sealed: it was wiped.
        """
        if not self._key:
            raise Sealed
        return bytes(self._key)

    def keyring(self, row: ClusterRow) -> Keyring:
        """Return the keyring in the cluster's row; the caller wipes it.

        Raises:
            DecryptionFailed: this is not the key that the row was wrapped with.
            Sealed: the key was wiped.
        """
        return unwrap(self.reveal(), row.wrapped_keyring, row.cluster_id, row.keyring_revision)

    def wipe(self) -> None:
        """Zero and drop the key, as far as Python lets us."""
        wipe(self._key)
        self._key = bytearray()

    def __repr__(self) -> str:
        return f"RootKey(epoch={self.epoch}, version={self.version})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RootKey is not pickled; seal it to its receiver instead")


def proven(key: bytes, row: ClusterRow) -> RootKey:
    """Return ``key`` as the root key of the row's seal epoch, after it opened the row's keyring.

    Raises:
        DecryptionFailed: it does not open it.
    """
    root = RootKey(key, row.seal_epoch, row.root_version)
    root.keyring(row).wipe()
    return root


def successor(prepared: RootKey | None, row: ClusterRow) -> RootKey | None:
    """Return the root key that was prepared, if it has become the row's; otherwise None.

    A new root key is given to those who hold the old one before it is committed, so that the end of the
    process that commits it loses nothing.
    """
    if prepared is None or not prepared.fits(row):
        return None
    try:
        prepared.keyring(row).wipe()
    except DecryptionFailed:
        return None
    return prepared


def sealed_root(
    held: RootKey | None, row: ClusterRow, psk: bytes, *, public: bytes, proof: bytes, node: str, epoch: int
) -> bytes:
    """Return the root key as a box for the process on ``node`` that asks for it.

    Args:
        held: what is here; nothing is fetched from elsewhere.
        row: the cluster's row, read just now.
        psk: the cluster's pre-shared key.
        public: the requester's fresh X25519 key.
        proof: shows that the requester holds the pre-shared key.
        node: the requester's node.
        epoch: the seal epoch that the requester believes in.

    Raises:
        PermissionDenied: no proof.
        Sealed: the cluster is sealed, or its present key is not here.
        Stale: the database is in another seal epoch.
    """
    bound = checked(psk, public, proof, cluster=row.cluster_id, node=node, purpose=ROOT, epoch=epoch)
    if row.sealed or held is None:
        raise Sealed
    if epoch != row.seal_epoch or held.epoch != row.seal_epoch:
        raise Stale("the seal epoch has moved on")
    if held.version != row.root_version:
        raise Sealed
    return seal_to(public, held.reveal(), psk, bound)


async def recover(givers: Sequence[Handle], psk: bytes, row: ClusterRow, *, node: str) -> RootKey:
    """Get the root key of the row's seal epoch from whoever has it, asking all at once.

    Args:
        givers: SealState and key-holders to ask.
        psk: the cluster's pre-shared key.
        row: the cluster's row, read just now.
        node: the asking node.

    Raises:
        Sealed: everybody answered, and nobody has it.
        Unavailable: nobody of those who answered has it.
    """
    asked = [
        asyncio.create_task(
            fetch_root(
                giver, psk, cluster=row.cluster_id, node=node, epoch=row.seal_epoch, timeout=PEER_SECONDS
            )
        )
        for giver in givers
    ]
    silent = False
    try:
        for answer in asyncio.as_completed(asked):
            try:
                return proven(await answer, row)
            except Unavailable:
                silent = True
            except DecryptionFailed:
                _log.error("a peer gave a root key that does not open the cluster's keyring")
            except SecretHubError as exc:
                _log.debug("a peer gave no root key: %s", exc.code)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    if silent:
        raise Unavailable("no process that answers has the root key")
    raise Sealed


async def hand_out(handles: Handles, psk: bytes, root: RootKey, row: ClusterRow) -> None:
    """Give the root key to every node's holder; one that is missed fetches it by itself."""

    async def give(node: str) -> None:
        await install_root(
            handles.key_holder(node),
            psk,
            root.reveal(),
            cluster=row.cluster_id,
            node=node,
            epoch=root.epoch,
            timeout=PEER_SECONDS,
        )

    await _each_node(handles, give, "was not given the root key")


async def prepare(handles: Handles, psk: bytes, following: RootKey, row: ClusterRow) -> None:
    """Give every node's holder the root key that is about to follow the present one."""

    async def give(node: str) -> None:
        await install_root(
            handles.key_holder(node),
            psk,
            following.reveal(),
            cluster=row.cluster_id,
            node=node,
            epoch=following.epoch,
            version=following.version,
            timeout=PEER_SECONDS,
        )

    await _each_node(handles, give, "was not given the next root key")


async def take_back(handles: Handles, epoch: int) -> list[str]:
    """Have every node's holder and the notary let go of their keys after the seal that began ``epoch``.

    Returns:
        Those that did not say that they have: they give nothing any more, and wipe their keys when they
        look at the database.
    """

    async def drop(node: str) -> None:
        await handles.key_holder(node).call("drop", epoch, timeout=PEER_SECONDS)

    async def signing() -> list[str]:
        try:
            await handles.notary().call("drop", epoch, timeout=PEER_SECONDS)
        except Unavailable as exc:
            _log.warning("the notary was not told to let go of its key: %s", exc)
            return ["audit-notary"]
        return []

    missed, more = await asyncio.gather(_each_node(handles, drop, "was not told to wipe its key"), signing())
    return missed + more


async def _each_node(handles: Handles, tell: Callable[[str], Awaitable[None]], failed: str) -> list[str]:
    try:
        nodes = await handles.live_nodes()
    except Unavailable:
        _log.warning("no key-holder %s: they cannot be listed", failed)
        return ["the key-holders, which cannot be listed"]
    results = await asyncio.gather(*(tell(node) for node in nodes), return_exceptions=True)
    missed = []
    for node, result in zip(nodes, results, strict=True):
        if isinstance(result, BaseException):
            _log.warning("the key-holder of node %s %s: %s", node, failed, type(result).__name__)
            missed.append(f"{node}/key-holder")
    return missed
