"""Making the cluster: written down before, and never given out when it could not be written down after."""

from __future__ import annotations

from typing import cast

from actors.handles.keys import INITIALISE_INFO
from actors.handles.seal import init_message
from actors.seal_openings import SealOpenings
from secrethub.audit.event import Origin
from secrethub.crypto.sealed_box import check_proof, seal_to
from secrethub.errors import Conflict, InvalidRequest, SecretHubError, Unavailable
from secrethub.ids import new_uuid
from secrethub.operations.seal_lifecycle import Initialised, RootKeyType, initialise
from secrethub.seal.slots import KmsKind, KmsSlot, check_numbers

_OPERATION = "sys.init"


class SealMaking(SealOpenings):
    """The call that makes the cluster. It may be repeated."""

    _dev: bool
    _root_key_type: RootKeyType
    _made: tuple[bytes, bytes] | None = None
    """Who asked, and what was answered, for the same request when its answer was lost."""

    async def initialise(
        self,
        shares: int,
        threshold: int,
        recipient_public: bytes,
        proof: bytes,
        origin: Origin | None = None,
        service: str | None = None,
    ) -> bytes:
        """Make the cluster.

        Args:
            shares: shares to make.
            threshold: how many of them count.
            recipient_public: of whom the answer is sealed to.
            proof: that it holds the pre-shared key.
            origin: who asks.
            service: name of the key in the node's settings that opens the cluster, which is asked at once;
                the shares are recovery shares then. Empty: the only one there is. None: the shares open it.

        Returns:
            The shares and the root token (:func:`actors.handles.seal.init_message`), sealed to
            ``recipient_public``. The cluster is sealed, or opened by the key service within moments.

        Raises:
            PermissionDenied: the requester does not hold the pre-shared key.
            InvalidRequest: impossible numbers, no such key, or one that cannot be used; nothing was made.
            Conflict: there is a cluster already.
            Unavailable: the database or the key service does not answer.
        """
        check_proof(self._psk, recipient_public, INITIALISE_INFO, proof)
        detail: dict[str, object] = {"secret_shares": shares, "secret_threshold": threshold}
        opener: KmsSlot | None = None
        if service is not None:
            detail["service"] = service
            async with self._turn:
                answered = await self._answered_init(recipient_public, origin, detail)
            if answered is not None:
                return answered
            opener = await self._opener(service, shares, threshold, origin, detail)
        async with self._turn:
            answered = await self._answered_init(recipient_public, origin, detail)
            if answered is not None:
                return answered
            made = await self._make(shares, threshold, opener, origin, detail)
            box = seal_to(
                recipient_public,
                init_message(made.shares, made.root_token, made.cluster_id),
                self._psk,
                INITIALISE_INFO,
            )
            self._made = (recipient_public, box)
            return box

    async def _answered_init(
        self, public: bytes, origin: Origin | None, detail: dict[str, object]
    ) -> bytes | None:
        """Return the answer that was given to the same request; None before there is a cluster."""
        if self._made is not None and self._made[0] == public:
            return self._made[1]
        if await self._present() is not None:
            refusal = Conflict("Vault is already initialized")
            await self._journal.record(origin, _OPERATION, "refused", reason=refusal.code, detail=detail)
            raise refusal
        return None

    async def _opener(
        self, service: str, shares: int, threshold: int, origin: Origin | None, detail: dict[str, object]
    ) -> KmsSlot:
        """Make the slot of the key service that shall open the cluster. Takes no turn while it is asked."""
        kinds = self._services.kinds()
        try:
            check_numbers(shares, threshold, "recovery")
            name = service or ("" if len(kinds) != 1 else next(iter(kinds)))
            if name not in kinds:
                known = ", ".join(sorted(kinds)) or "none"
                raise InvalidRequest(
                    f"recovery_shares and recovery_threshold need a key service; the node's "
                    f"settings have: {known}"
                )
            return await self._new_slot(new_uuid(), cast("KmsKind", kinds[name]), name)
        except SecretHubError as exc:
            async with self._turn:
                await self._journal.record(origin, _OPERATION, "refused", reason=exc.code, detail=detail)
            raise

    async def _make(
        self,
        shares: int,
        threshold: int,
        opener: KmsSlot | None,
        origin: Origin | None,
        detail: dict[str, object],
    ) -> Initialised:
        await self._journal.record(origin, _OPERATION, "intent", detail=detail)
        try:
            made = await initialise(
                self._database,
                shares,
                threshold,
                self._clock.now(),
                dev=self._dev,
                root_key_type=self._root_key_type,
                opener=opener,
                psk=self._psk,
            )
        except SecretHubError as exc:
            await self._journal.record(origin, _OPERATION, "refused", reason=exc.code, detail=detail)
            raise
        try:
            told = {"cluster_id": made.cluster_id, "written": made.written}
            await self._journal.record(origin, _OPERATION, "done", detail=told)
        except Unavailable as exc:
            raise Unavailable(
                "the cluster was made, but that could not be written down, so its shares were not "
                "given out: drop the database and initialise again"
            ) from exc
        return made
