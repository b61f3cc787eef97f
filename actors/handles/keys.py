"""Key hand-over between processes: both ends of every sealed box that passes through an actor call.

Whoever wants keys makes a fresh key pair and proves that it holds the cluster's pre-shared key; whoever
gives them checks the proof before anything else and seals to that key pair
(:mod:`secrethub.crypto.sealed_box`). What a box is for is bound into it by its purpose, the receiving
node and the seal epoch.
"""

from __future__ import annotations

from actors.handles.protocol import Handle, Handles
from secrethub.crypto.keyring import Keyring
from secrethub.crypto.sealed_box import Recipient, check_proof, info, proof, seal_to

KEYRING = "keyring"
ROOT = "root"
INSTALL = "install-root"
PREPARE = "prepare-root"
SHARE = "share"
CEREMONY = "ceremony"
INITIALISE = "initialise"

SHARE_INFO = info("", "seal-state", SHARE, 0)
"""A share is bound to SealState's present key pair, which lasts for one attempt."""
INITIALISE_INFO = info("", "seal-state", INITIALISE, 0)
"""Before init there is no cluster id; the pre-shared key itself names the cluster."""

CEREMONY_INFO = info("", "seal-state", CEREMONY, 0)
"""What a ceremony gives out goes to the one request that gave the last share."""


async def fetch_keyring(
    handles: Handles, psk: bytes, *, cluster: str, node: str, epoch: int, timeout: float = 10.0
) -> Keyring:
    """Get the keyring from this node's KeyHolder.

    Args:
        handles: where to ask.
        psk: the cluster's pre-shared key.
        cluster: the cluster's id, from its row.
        node: this node.
        epoch: the seal epoch that the database has now.
        timeout: seconds.

    Raises:
        Sealed: the cluster is sealed, or no holder has the keys.
        Stale: the seal epoch has moved on; look again.
        Unavailable: the KeyHolder or the database does not answer.
        PermissionDenied: the pre-shared keys differ.
    """
    holder = handles.key_holder(node)
    opened = await _fetch(holder, KEYRING, psk, cluster=cluster, node=node, epoch=epoch, timeout=timeout)
    return Keyring.load(opened)


async def fetch_root(
    giver: Handle, psk: bytes, *, cluster: str, node: str, epoch: int, timeout: float
) -> bytes:
    """Get the root key from a process that holds it: for SealState and key-holders only.

    Raises:
        Sealed, Stale, Unavailable, PermissionDenied: as in :func:`fetch_keyring`.
    """
    return await _fetch(giver, ROOT, psk, cluster=cluster, node=node, epoch=epoch, timeout=timeout)


async def install_root(
    holder: Handle,
    psk: bytes,
    root_key: bytes,
    *,
    cluster: str,
    node: str,
    epoch: int,
    version: int | None = None,
    timeout: float,
) -> None:
    """Give the root key to the KeyHolder of ``node``.

    Args:
        holder: the KeyHolder.
        psk: the cluster's pre-shared key.
        root_key: 32 bytes.
        cluster: the cluster's id.
        node: the holder's node.
        epoch: the seal epoch.
        version: of a root key that is about to become the cluster's; None for the present one.
        timeout: seconds.

    Raises:
        Sealed: the cluster was sealed meanwhile.
        DecryptionFailed: the pre-shared keys differ, or the holder was replaced meanwhile.
        Unavailable: it does not answer.
    """
    public = await holder.call("public_key", timeout=timeout)
    if version is None:
        box = seal_to(public, root_key, psk, info(cluster, node, INSTALL, epoch))
        await holder.call("install_root", box, timeout=timeout)
        return
    box = seal_to(public, root_key, psk, info(cluster, node, f"{PREPARE}/{version}", epoch))
    await holder.call("prepare_root", box, version, timeout=timeout)


def checked(
    psk: bytes, public: bytes, given: bytes, *, cluster: str, node: str, purpose: str, epoch: int
) -> bytes:
    """Check a requester's proof and return what its box must be bound to.

    Raises:
        PermissionDenied: the requester does not hold the pre-shared key.
    """
    bound = info(cluster, node, purpose, epoch)
    check_proof(psk, public, bound, given)
    return bound


async def _fetch(
    giver: Handle, purpose: str, psk: bytes, *, cluster: str, node: str, epoch: int, timeout: float
) -> bytes:
    recipient = Recipient()
    bound = info(cluster, node, purpose, epoch)
    shown = proof(psk, recipient.public, bound)
    box = await giver.call(purpose, recipient.public, shown, node, epoch, timeout=timeout)
    return recipient.open(box, psk, bound)
