"""What shows that the cluster was unsealed, and not the row that says so.

Key services are asked without people, so who can have them asked decides whether the cluster is open. The
database says that it is unsealed, and anybody could say so who writes to it. The HMAC is under the key that
the nodes share, for the root key is what is asked for. It is about one seal epoch, so an older one is of no
use with a newer one; that the epoch itself was not put back is for the nodes' witnesses to say.
"""

from __future__ import annotations

from secrethub.crypto.digests import derive, equal, mac


def unsealed_mac(psk: bytes, cluster_id: str, seal_epoch: int) -> bytes:
    """Return what shows that a holder of the pre-shared key unsealed the cluster in this epoch (32 bytes)."""
    return mac(derive(psk, "secrethub/psk/unsealed"), "secrethub/unsealed/v1", cluster_id, seal_epoch)


def is_unsealed(psk: bytes, cluster_id: str, seal_epoch: int, given: bytes) -> bool:
    """Tell whether ``given`` shows that."""
    return equal(unsealed_mac(psk, cluster_id, seal_epoch), given)
