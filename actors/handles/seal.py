"""The way of a serving process to SealState, in sealed boxes."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from actors.handles.ceremonies import CeremonyClient
from actors.handles.keys import INITIALISE_INFO, SHARE_INFO, fetch_keyring
from actors.handles.protocol import Handles
from secrethub.audit.event import Origin
from secrethub.crypto.keyring import Keyring
from secrethub.crypto.sealed_box import Recipient, proof, seal_to
from secrethub.engines.runtime import InitResult, SealStatus
from secrethub.errors import Stale, Unavailable

_TRIES = 3
_SECONDS = 30.0
"""How long a transition may take: it commits, and every node's holder is told."""
_MAKING_SECONDS = 60.0
"""How long init may take: a key service may be waited for, twice, before anything is made."""


class _InitMessage(msgspec.Struct, frozen=True):
    keys: tuple[str, ...]
    root_token: str
    cluster_id: str

    def __repr__(self) -> str:
        return f"_InitMessage(cluster_id={self.cluster_id!r})"


def init_message(shares: Sequence[bytes], root_token: str, cluster_id: str) -> bytes:
    """Return SealState's answer to init, to be sealed: JSON with ``keys`` in base64."""
    keys = tuple(base64.b64encode(share).decode() for share in shares)
    return msgspec.json.encode(_InitMessage(keys=keys, root_token=root_token, cluster_id=cluster_id))


class SealClient:
    """The seal as :class:`secrethub.engines.runtime.SealPort`, over actor handles."""

    def __init__(self, handles: Handles, psk: bytes) -> None:
        """Prepare; nothing is called.

        Args:
            handles: where SealState is found.
            psk: the cluster's pre-shared key.
        """
        self._handles = handles
        self._state = handles.seal_state()
        self._psk = psk
        self.ceremonies = CeremonyClient(self._state, psk)

    def __repr__(self) -> str:
        return "SealClient()"

    async def initialise(
        self, shares: int, threshold: int, origin: Origin | None = None, service: str | None = None
    ) -> InitResult:
        """Make the cluster; arguments as of :meth:`actors.seal_making.SealMaking.initialise`.

        Raises:
            Conflict: there is one already.
            InvalidRequest: impossible numbers, or no such key in the node's settings.
            Unavailable: SealState or the database does not answer; the outcome may be unknown.
        """
        recipient = Recipient()
        shown = proof(self._psk, recipient.public, INITIALISE_INFO)
        box = await self._state.call(
            "initialise", shares, threshold, recipient.public, shown, origin, service, timeout=_MAKING_SECONDS
        )
        made = msgspec.json.decode(recipient.open(box, self._psk, INITIALISE_INFO), type=_InitMessage)
        return InitResult(
            keys=tuple(base64.b64decode(key, validate=True) for key in made.keys), root_token=made.root_token
        )

    async def submit_share(self, share: bytes, origin: Origin | None = None) -> None:
        """Give one unseal share.

        Raises:
            WrongShare: malformed, unknown, or given already.
            NotInitialised: there is no cluster.
            Unavailable: SealState or the database does not answer.
        """
        await self._give("submit_share", share, origin)

    async def accept_restore(self, share: bytes, origin: Origin | None = None) -> None:
        """Give one unseal share to accept that the database was put back.

        Raises:
            Conflict: there is nothing to accept.
            WrongShare, NotInitialised, Unavailable: as in :meth:`submit_share`.
        """
        await self._give("accept_share", share, origin)

    async def _give(self, method: str, share: bytes, origin: Origin | None) -> None:
        for _ in range(_TRIES):
            public = await self._state.call("public_key")
            try:
                box = seal_to(public, share, self._psk, SHARE_INFO)
                await self._state.call(method, box, origin, timeout=_SECONDS)
            except Stale:
                continue  # SealState took another key pair between the two calls
            return
        raise Unavailable("SealState does not open what this process seals: do their cluster keys differ?")

    async def reset(self, origin: Origin | None = None) -> None:
        """Forget the shares given so far."""
        await self._state.call("reset", origin)

    async def refuse(self, operation: str, reason: str, origin: Origin) -> None:
        """Write down what was refused before it got to SealState.

        Raises:
            Unavailable: it could not be made durable.
        """
        await self._state.call("refuse", operation, reason, origin)

    async def status(self) -> SealStatus:
        """Return the seal's state.

        Raises:
            Unavailable: it cannot be told now; this never means sealed or not initialised.
        """
        return SealStatus(**await self._state.call("status"))

    async def seal(self, origin: Origin | None = None) -> list[str]:
        """Seal the cluster: effective everywhere when this returns.

        Returns:
            The key-holders that did not say that they have dropped their keys.

        Raises:
            NotInitialised: there is no cluster.
            Unavailable: it could not be committed, or that is unknown; call again.
        """
        missed: list[str] = await self._state.call("seal", origin, timeout=_SECONDS)
        return missed

    async def keyring(self, cluster_id: str, node: str, epoch: int) -> Keyring:
        """Return the keyring from the KeyHolder of ``node``.

        Raises:
            Sealed: the cluster is sealed, or no holder has the keys.
            Stale: the seal epoch has moved on.
            Unavailable: the KeyHolder or the database does not answer.
        """
        return await fetch_keyring(self._handles, self._psk, cluster=cluster_id, node=node, epoch=epoch)

    async def rotate(self, after: int, origin: Origin | None = None) -> int:
        """Have a data key added after the one numbered ``after``; return the newest one's number.

        Raises:
            Sealed: the cluster is sealed.
            Conflict: it was sealed meanwhile; nothing happened.
            Unavailable: it could not be committed, or that is unknown; call again.
        """
        return int(await self._state.call("rotate", after, origin, timeout=_SECONDS))
