"""What the slots say of the seal, for those who ask for its state."""

from __future__ import annotations

from collections.abc import Sequence

from secrethub.engines.runtime import SealStatus
from secrethub.seal.slots import KmsSlot, Slot, kind_of
from secrethub.seal.wishes import deciding
from secrethub.storage.seal_store import ClusterRow


def described(
    cluster: ClusterRow, slots: Sequence[Slot], *, sealed: bool, progress: int = 0, nonce: str = ""
) -> SealStatus:
    """Return the seal's state.

    Args:
        cluster: its row.
        slots: all of them, oldest first.
        sealed: whether the keys are missing.
        progress: unseal shares given so far.
        nonce: of the attempt to unseal.
    """
    sets = deciding(slots)
    newest = sets[-1] if sets else None
    services = [slot.kind for slot in slots if isinstance(slot, KmsSlot)]
    opens = any(one.opens for one in sets)
    return SealStatus(
        initialised=True,
        sealed=sealed,
        threshold=newest.threshold if newest is not None else 0,
        shares=newest.shares if newest is not None else 0,
        progress=progress,
        nonce=nonce,
        cluster_id=cluster.cluster_id,
        cluster_name=cluster.cluster_name,
        rolled_back=cluster.rolled_back,
        kind=services[0] if services and not opens else "shamir",
        recovery=not opens,
        slots=tuple((slot.slot_id, kind_of(slot)) for slot in slots),
    )
