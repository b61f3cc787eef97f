"""SealState's ceremonies: rekey with its verification, and making a root token.

Order, always: the share is recognised, what is going to happen is written down, it is committed, it is
adopted here, its outcome is written down, and only then anything is given out. The end of the process at
any point leaves shares that people have, and that open:

- Before the commit of a rekey the old ones. With verification that commit comes after the new shares were
  given back, so it is certain that somebody has them.
- Without verification the commit leaves the old set beside the new one (``leaving``). It goes, with another
  new root key, once the answer with the new shares was handed over, or when one of the two sets is used:
  the new one, which shows that it arrived, or the old one for another rekey.

Attempts, and shares given to them, are in this process's memory alone and are lost with it.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from actors.handles.ceremonies import Given, ceremony_message
from actors.handles.keys import CEREMONY_INFO, SHARE_INFO
from actors.root_key import RootKey, hand_out, prepare
from actors.seal_core import SealCore
from actors.tree import SEAL_STATE
from secrethub.audit.event import Origin
from secrethub.crypto.sealed_box import check_proof, seal_to
from secrethub.engines.ceremonies import Progress
from secrethub.errors import (
    Conflict,
    DecryptionFailed,
    IntegrityFailure,
    InvalidRequest,
    NotInitialised,
    Sealed,
    SecretHubError,
    Stale,
    Unavailable,
    WrongShare,
)
from secrethub.operations.root_token import create_root_token
from secrethub.seal.ceremony import Ceremony, Quorum
from secrethub.seal.slots import KEY_BYTES, Slot, make_share_set
from secrethub.seal.wishes import (
    AddSlot,
    GenerateRoot,
    Purpose,
    Rekey,
    RemoveSlot,
    Verify,
    Wish,
    deciding,
    encode_token,
    settled,
    told,
    with_new_set,
    with_only_set,
    without,
)
from secrethub.storage.seal_slots import load_authentic_slots, replace_root
from secrethub.storage.seal_store import ClusterRow

_log = logging.getLogger(__name__)

_IDLE: dict[Purpose, str] = {
    "rekey": "no rekey is under way",
    "rekey-verify": "no rekey waits for its verification",
    "generate-root": "no attempt to generate a root token is under way",
    "slots": "no change of the slots is under way",
}


class SealCeremonies(SealCore):
    """The calls of a ceremony. Each may be repeated."""

    _answered: tuple[bytes, Given] | None = None
    """The answer to the last request that finished an attempt, for the same request when it was lost."""

    async def start(self, purpose: Purpose, wish: Wish, origin: Origin | None = None) -> Progress:
        """Begin an attempt.

        Args:
            purpose: ``rekey`` or ``generate-root``.
            wish: what shall be done.
            origin: who asks.

        Raises:
            Sealed: the cluster is sealed.
            Conflict: one is under way already.
            InvalidRequest: it cannot be done.
            IntegrityFailure: a slot's row is not authentic.
            Unavailable: the database does not answer.
        """
        async with self._turn:
            root, _ = await self._opened()
            try:
                if purpose in self._ceremonies or (purpose == "rekey" and "rekey-verify" in self._ceremonies):
                    raise Conflict(f"{purpose} already in progress")
                found = await load_authentic_slots(self._database, root.reveal())
                slots = deciding(found)
                if isinstance(wish, Rekey):
                    wish.check(slots[-1])
                if isinstance(wish, RemoveSlot):
                    without(found, wish.slot_id)
                ceremony = Ceremony(wish=wish, slots=slots)
            except SecretHubError as exc:
                await self._journal.record(origin, f"sys.{purpose}-start", "refused", reason=exc.code)
                raise
            detail = {"nonce": ceremony.nonce, **told(wish)}
            await self._journal.record(origin, f"sys.{purpose}-start", "done", detail=detail)
            self._ceremonies[purpose] = ceremony
            return self._progress(purpose)

    async def attempt(self, purpose: Purpose) -> Progress:
        """Tell how far an attempt is; one that does not exist is not started.

        Raises:
            Sealed: the cluster is sealed.
            Unavailable: the database does not answer.
        """
        async with self._turn:
            await self._opened()
            return self._progress(purpose)

    async def cancel(self, purpose: Purpose, origin: Origin | None = None, nonce: str = "") -> None:
        """End an attempt, if there is one. Cancelling a verification begins it anew.

        Args:
            purpose: of the attempt.
            origin: who asks.
            nonce: of the attempt that is meant; empty for whichever is under way.

        Raises:
            InvalidRequest: another one is under way.
            Sealed: the cluster is sealed.
            Unavailable: the database does not answer.
        """
        async with self._turn:
            await self._opened()
            found = self._ceremonies.get(purpose)
            meant = found or (self._ceremonies.get("rekey-verify") if purpose == "rekey" else None)
            if nonce and meant is not None:
                try:
                    meant.check_nonce(nonce)
                except InvalidRequest as exc:
                    await self._journal.record(origin, f"sys.{purpose}-cancel", "refused", reason=exc.code)
                    raise
            detail = {"nonce": found.nonce if found is not None else ""}
            await self._journal.record(origin, f"sys.{purpose}-cancel", "done", detail=detail)
            if purpose == "rekey-verify" and found is not None:
                self._ceremonies[purpose] = Ceremony(wish=found.wish, slots=found.slots)
                return
            self._ceremonies.pop(purpose, None)
            if purpose == "rekey":
                self._ceremonies.pop("rekey-verify", None)

    async def give(
        self,
        purpose: Purpose,
        box: bytes,
        nonce: str,
        recipient_public: bytes,
        proof: bytes,
        origin: Origin | None = None,
    ) -> Given:
        """Take one share, sealed to SealState's public key; the last one needed has the wish done.

        Returns:
            How far it is, and what it gives out, sealed to ``recipient_public``.

        Raises:
            PermissionDenied: the requester does not hold the pre-shared key.
            Stale: the box was sealed to a former key pair, or without the pre-shared key.
            Sealed: the cluster is sealed.
            InvalidRequest: no attempt of this kind, or another one than ``nonce`` names, is under way; or
                these shares cannot authorise it, but others may.
            WrongShare: malformed, unknown, or given already; the other shares stay given.
            IntegrityFailure: a slot's row is not authentic.
            Unavailable: the database does not answer.
        """
        check_proof(self._psk, recipient_public, CEREMONY_INFO, proof)
        async with self._turn:
            if self._answered is not None and self._answered[0] == recipient_public:
                return self._answered[1]
            root, row = await self._opened()
            try:
                share = self._recipient.open(box, self._psk, SHARE_INFO)
            except DecryptionFailed as exc:
                raise Stale("the share is not sealed to the present key; ask for it again") from exc
            try:
                ceremony = self._ceremonies.get(purpose)
                if ceremony is None:
                    raise InvalidRequest(_IDLE[purpose])
                after = ceremony.give(share, nonce)
                if isinstance(after, Quorum) and isinstance(ceremony.wish, RemoveSlot):
                    found = await load_authentic_slots(self._database, root.reveal())
                    without(found, ceremony.wish.slot_id, after.slot)
            except (InvalidRequest, DecryptionFailed, IntegrityFailure) as exc:
                reason = exc.reason if isinstance(exc, WrongShare) else exc.code
                await self._journal.record(origin, f"sys.{purpose}", "refused", reason=reason)
                raise
            if isinstance(after, Ceremony):
                detail = {"progress": after.progress, "nonce": after.nonce}
                await self._journal.record(origin, f"sys.{purpose}", "progress", detail=detail)
                self._ceremonies[purpose] = after
                return Given(progress=self._progress(purpose))
            await self._journal.record(origin, f"sys.{purpose}", "intent", detail={"nonce": ceremony.nonce})
            del self._ceremonies[purpose]
            given = await self._fulfil(root, row, ceremony, after, recipient_public)
            await self._journal.record(origin, f"sys.{purpose}", "done", detail={"nonce": ceremony.nonce})
            self._answered = (recipient_public, given)
            return given

    async def settle(self, slot_id: str, origin: Origin | None = None) -> None:
        """Let the sets of shares go that ``slot_id`` replaced: somebody has the new ones.

        Raises:
            Sealed: the cluster is sealed.
            Unavailable: the database does not answer; the old shares still count.
        """
        async with self._turn:
            root, row = await self._opened()
            sets = deciding(await load_authentic_slots(self._database, root.reveal()))
            newest = sets[-1].slot_id == slot_id and not sets[-1].leaving
            if newest and any(slot.leaving for slot in sets):
                await self._journal.record(origin, "sys.rekey-settle", "intent", detail={"slot": slot_id})
                await self._change(root, row, settled)
                await self._journal.record(origin, "sys.rekey-settle", "done", detail={"slot": slot_id})

    # -- always under self._turn ------------------------------------------------------------------

    async def _opened(self) -> tuple[RootKey, ClusterRow]:
        try:
            row = await self._following()
        except NotInitialised:
            raise Sealed from None
        if self._held is None:
            raise Sealed
        return self._held, row

    async def _fulfil(
        self,
        root: RootKey,
        row: ClusterRow,
        ceremony: Ceremony,
        quorum: Quorum,
        public: bytes,
    ) -> Given:
        wish: Wish = ceremony.wish
        done = Progress(nonce=ceremony.nonce, required=quorum.slot.threshold, complete=True)
        if isinstance(wish, GenerateRoot):
            written: list[dict[str, Any]] = []
            token = await self._committed(
                create_root_token(
                    self._database,
                    root.reveal(),
                    held=row,
                    writer=SEAL_STATE,
                    epoch=self._incarnation,
                    now=self._clock.now(),
                    written=written,
                )
            )
            await self._journal.record(None, "sys.generate-root", "written", detail={"written": written})
            return self._answer(done, public, secret=(encode_token(token, wish.otp),))
        if isinstance(wish, AddSlot):
            await self._change(root, row, lambda slots: [*slots, wish.slot])
            return Given(progress=msgspec.structs.replace(done, slot_id=wish.slot.slot_id))
        if isinstance(wish, RemoveSlot):
            await self._change(root, row, lambda slots: without(slots, wish.slot_id, quorum.slot))
            return Given(progress=msgspec.structs.replace(done, slot_id=wish.slot_id))
        if isinstance(wish, Verify):
            await self._change(root, row, lambda slots: with_only_set(slots, wish.slot))
            return Given(progress=done)
        new, shares = make_share_set(row.cluster_id, wish.shares, wish.threshold, opens=wish.opens)
        told = tuple(base64.b64encode(share).decode() for share in shares)
        if wish.verify:
            check = Ceremony(wish=Verify(slot=new, recovery=wish.recovery), slots=(new,))
            self._ceremonies["rekey-verify"] = check
            return self._answer(msgspec.structs.replace(done, verification=check.nonce), public, secret=told)
        await self._change(root, row, lambda slots: with_new_set(slots, new, quorum.slot))
        return self._answer(msgspec.structs.replace(done, slot_id=new.slot_id), public, secret=told)

    async def _change(
        self, root: RootKey, row: ClusterRow, change: Callable[[Sequence[Slot]], Sequence[Slot]]
    ) -> None:
        """Commit other slots and the root key that comes with them, and let every holder have it."""
        following = RootKey(os.urandom(KEY_BYTES), row.seal_epoch, row.root_version + 1)
        await prepare(self._handles, self._psk, following, row)
        # From here on the database may need it, whatever becomes of the commit.
        self._next = following
        after = await self._committed(
            replace_root(
                self._database,
                root.reveal(),
                following.reveal(),
                change,
                held=row,
                writer=SEAL_STATE,
                epoch=self._incarnation,
                now=self._clock.now(),
            )
        )
        self._next = None
        self._replace(following, after)
        try:
            await self._present()
        except Unavailable:
            _log.warning("the slots could not be read after they were changed; they are read later")
        await hand_out(self._handles, self._psk, following, after)

    def _answer(self, progress: Progress, public: bytes, *, secret: tuple[str, ...]) -> Given:
        box = seal_to(public, ceremony_message(secret), self._psk, CEREMONY_INFO)
        return Given(progress=progress, box=box)

    def _progress(self, purpose: Purpose) -> Progress:
        ceremony = self._ceremonies.get(purpose)
        check = self._ceremonies.get("rekey-verify")
        if ceremony is None and purpose == "rekey" and check is not None:
            # The shares were given; what is left is the verification.
            ceremony = check
        if ceremony is None:
            slot = self._machine.slot
            return Progress(required=slot.threshold if slot is not None else 0)
        wish = ceremony.wish
        verifying = purpose == "rekey" and isinstance(wish, Verify)
        return Progress(
            started=True,
            nonce=ceremony.nonce,
            progress=0 if verifying else ceremony.progress,
            required=ceremony.slot.threshold,
            shares=wish.shares if isinstance(wish, Rekey) else ceremony.slot.shares,
            threshold=wish.threshold if isinstance(wish, Rekey) else ceremony.slot.threshold,
            verify=isinstance(wish, Verify) or (isinstance(wish, Rekey) and wish.verify),
            recovery=isinstance(wish, Rekey | Verify) and wish.recovery,
            verification=check.nonce if check is not None and purpose == "rekey" else "",
        )
