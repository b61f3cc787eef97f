"""What a new cluster is made of: id, root key, keyring, notary's key, slots and shares."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secrethub.crypto import notary_key
from secrethub.crypto.keyring import Keyring, wrap
from secrethub.ids import new_uuid
from secrethub.seal.slots import (
    KEY_BYTES,
    KmsSlot,
    Slot,
    make_shamir_slot,
    make_share_set,
    sealed_to,
)
from secrethub.seal.timeline import FIRST, timeline_mac

FIRST_REVISION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """A cluster's beginning. Secrets are hidden in ``repr``; refuses pickling.

    Attributes:
        cluster_id: a fresh UUID.
        root_key: 32 random bytes.
        keyring: with its first data key.
        wrapped_keyring: the keyring sealed under the root key, to be stored.
        keyring_revision: the revision it is bound to.
        notary_public: public key of the notary, 32 bytes.
        notary_mac: what tells holders of the keyring that it is.
        wrapped_notary: its signing key sealed under the root key, to be stored.
        timeline_mac: what shows that the root key began the first timeline.
        slots: what opens the root key and who decides, to be stored.
        shares: unseal shares, or recovery shares beside a key service; shown once, stored nowhere.
    """

    cluster_id: str
    root_key: bytes = field(repr=False)
    keyring: Keyring
    wrapped_keyring: bytes
    keyring_revision: int
    notary_public: bytes
    notary_mac: bytes
    wrapped_notary: bytes
    timeline_mac: bytes
    slots: tuple[Slot, ...]
    shares: tuple[bytes, ...] = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Bootstrap holds key bytes and is not pickled")


def bootstrap(shares: int, threshold: int, made_at: int, opener: KmsSlot | None = None) -> Bootstrap:
    """Make everything a new cluster needs.

    Args:
        shares: how many shares to make, up to 255.
        threshold: how many of them count; at least 2 when there is more than one share.
        made_at: the instant, in seconds since the epoch.
        opener: the slot of a key service that opens the cluster, whose id it names; the shares are recovery
            shares then. None: the shares open it.

    Raises:
        InvalidRequest: numbers outside these limits.
    """
    cluster_id = new_uuid() if opener is None else opener.cluster_id
    root_key = os.urandom(KEY_BYTES)
    slots: tuple[Slot, ...]
    if opener is None:
        slot, made = make_shamir_slot(cluster_id, root_key, shares, threshold)
        slots = (slot,)
    else:
        slot, made = make_share_set(cluster_id, shares, threshold, opens=False)
        slots = (slot, sealed_to(opener, root_key))
    keyring = Keyring.generate(made_at)
    notary = Ed25519PrivateKey.generate()
    return Bootstrap(
        cluster_id=cluster_id,
        root_key=root_key,
        keyring=keyring,
        wrapped_keyring=wrap(root_key, keyring, cluster_id, FIRST_REVISION),
        keyring_revision=FIRST_REVISION,
        notary_public=notary_key.public_of(notary),
        notary_mac=notary_key.vouch(keyring, cluster_id, notary_key.public_of(notary)),
        wrapped_notary=notary_key.wrap(root_key, notary, cluster_id),
        timeline_mac=timeline_mac(root_key, cluster_id, FIRST),
        slots=slots,
        shares=tuple(made),
    )
