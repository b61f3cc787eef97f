"""The agent as a witness of the ledger: the newest checkpoint that any gateway has shown it, in a file.

Core is told of it on every connection. A restored database has less than that, and then Core seals itself. So
what is kept is replaced only by a newer checkpoint with the notary's signature, under the key that the
first gateway named, over the certificates that the agent trusts. A gateway that shows less, something else in
its place, or another key, is not talked to any further.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from agent.state import StateDirectory
from secrethub.audit.checkpoint import is_signed, link
from secrethub.audit.witness import Witness, file_name, is_newer, pack, read_witness, unpack
from secrethub.errors import IntegrityFailure, Misconfigured, SecretHubError
from secrethub.wire.messages import Checkpoint

_RETRY = 60.0
"""Seconds until a file that could not be written is written again."""

_log = logging.getLogger(__name__)


class LedgerWitness:
    """What is kept of one cluster's ledger, and its file."""

    def __init__(self, state: StateDirectory, cluster: str) -> None:
        """Read what is kept.

        Args:
            state: the agent's.
            cluster: id of the cluster, from the agent's certificate.

        Raises:
            Misconfigured: the file cannot be read.
        """
        self._state = state
        self._cluster = cluster
        self._name = file_name(cluster)
        self._unsaved = asyncio.Event()
        content = state.read(self._name)
        try:
            self._kept = None if content is None else read_witness(content)
        except ValueError as exc:
            path = state.path / self._name
            raise Misconfigured(f"{path} cannot be read, so a restored ledger would not be noticed") from exc

    @property
    def shown(self) -> bytes:
        """What Core is told, empty for nothing."""
        return b"" if self._kept is None else pack(self._kept.signed)

    def take(self, message: Checkpoint) -> None:
        """Take what a gateway shows; it is written soon.

        Raises:
            IntegrityFailure: it is not what this agent may be shown; the gateway is not to be trusted.
        """
        kept = self._kept
        try:
            signed = unpack(message.signed)
        except ValueError as exc:
            raise self._wrong("no checkpoint") from exc
        public = message.public if kept is None else kept.public
        if message.public != public:
            raise self._wrong("signed with another key than it was")
        if signed.checkpoint.cluster != self._cluster or not is_signed(signed, public):
            raise self._wrong("not signed by this cluster's notary")
        if kept is not None and not is_newer(signed, kept.signed):
            if is_newer(kept.signed, signed):
                raise self._wrong("older than what this agent has seen")
            if link(kept.signed) != link(signed):
                raise self._wrong("not what this agent has seen in its place")
            return
        self._kept = Witness(public, signed)
        self._unsaved.set()

    async def run(self) -> None:
        """Write what is new, for as long as the agent runs."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await asyncio.to_thread(self._state.write, self._name, msgspec.json.encode(self._kept))
            except SecretHubError as exc:
                _log.error("the ledger's newest checkpoint could not be kept", extra={"error": str(exc)})
                self._unsaved.set()
                await asyncio.sleep(_RETRY)

    def _wrong(self, reason: str) -> IntegrityFailure:
        _log.error("what Core shows of its ledger cannot be", extra={"reason": reason})
        return IntegrityFailure("ledger", "checkpoint", reason)
