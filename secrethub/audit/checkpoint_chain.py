"""Checking the checkpoints, one after the other, and collecting what they vouch for.

Every checkpoint carries the digest of the one before, so the signature of one is that of all before it:
one in :data:`STRIDE` is checked, and each of them only where one is wrong. What a checkpoint says of its
streams is looked at entry by entry in :mod:`secrethub.audit.verification`.
"""

from __future__ import annotations

from secrethub.audit.chain import Bad, Reason
from secrethub.audit.checkpoint import BEFORE_FIRST, Signed, StreamTree, is_signed, link
from secrethub.audit.checkpoint_base import SignedBase, is_base_signed
from secrethub.audit.claims import NO_CLAIM, StreamClaims

CHECKPOINTS = "checkpoints"
"""Stands for the stream where a checkpoint is the first bad record."""

STRIDE = 64


class CheckpointVerifier:
    """Checks checkpoints as they are fed in order of their sequence.

    Attributes:
        bad: the first that is not in order.
        count: how many were fed.
        claims: what they say of each stream, the base included.
        cluster: whose they are.
        last: the newest that was fed.
        tree: of the newest.
    """

    __slots__ = (
        "_order",
        "_pending",
        "_previous",
        "_public",
        "_reached",
        "bad",
        "claims",
        "cluster",
        "count",
        "last",
        "tree",
    )

    def __init__(self, cluster: str, public: bytes) -> None:
        """Begin.

        Args:
            cluster: id of the cluster.
            public: the notary's public key, 32 bytes.
        """
        self.cluster = cluster
        self._public = public
        self._previous = BEFORE_FIRST
        self._reached: int | None = None
        """The number of the newest, be it the base."""
        self._order = (0, 0)
        """Its timeline and epoch."""
        self._pending: list[Signed] = []
        self.tree = StreamTree()
        self.bad: Bad | None = None
        self.count = 0
        self.claims: dict[str, StreamClaims] = {}
        self.last: Signed | None = None

    def begin(self, signed: SignedBase) -> Bad | None:
        """Begin with a base, which stands for what was pruned; before anything is fed."""
        base = signed.base
        if self.count or self._reached is not None:
            return self._fail(base.sequence, "duplicate")
        if not is_base_signed(signed, self._public):
            return self._fail(base.sequence, "bad signature")
        if base.cluster != self.cluster:
            return self._fail(base.sequence, "inserted")
        self._reached, self._order = base.sequence, (base.timeline, base.epoch)
        self._previous = base.link
        self.tree = StreamTree(base.heads)
        self.claims = {head.stream: StreamClaims(head) for head in base.heads}
        return self.bad

    def feed(self, signed: Signed) -> Bad | None:
        """Check one more; the first is the first that there was, or follows the base.

        A later one would not tell of streams that have ended before it.
        """
        self.count += 1
        if self.bad is not None:
            return self.bad
        checkpoint = signed.checkpoint
        reached = self._reached or 0
        if checkpoint.sequence != reached + 1:
            return self._fail(reached + 1, "gap" if checkpoint.sequence > reached else "duplicate")
        if checkpoint.previous != self._previous:
            if self._flush() is None:
                genuine = is_signed(signed, self._public)
                self._fail(checkpoint.sequence, "forked" if genuine else "bad signature")
            return self.bad
        reason = self._judge(signed)
        if reason is not None:
            # Whether it or its signature was edited shows in the signature alone.
            genuine = self._flush() is None and is_signed(signed, self._public)
            return self.bad or self._fail(checkpoint.sequence, reason if genuine else "bad signature")
        self.last = signed
        self._reached, self._order = checkpoint.sequence, (checkpoint.timeline, checkpoint.epoch)
        self._previous = link(signed)
        self._pending.append(signed)
        if len(self._pending) >= STRIDE:
            self._flush()
        return self.bad

    def finish(self) -> Bad | None:
        """Check what is left to be checked and return the verdict."""
        self._flush()
        return self.bad

    def _judge(self, signed: Signed) -> Reason | None:
        checkpoint = signed.checkpoint
        if checkpoint.cluster != self.cluster:
            return "inserted"
        if (checkpoint.timeline, checkpoint.epoch) < self._order:
            return "forked"
        for head in checkpoint.heads:
            if not 0 < head.number < NO_CLAIM:
                return "edited"
            claims = self.claims.get(head.stream)
            if claims is None:
                self.claims[head.stream] = StreamClaims(head)
            elif not claims.add(head):
                return "forked"
        self.tree.move(checkpoint.heads)
        if (len(self.tree), self.tree.root()) != (checkpoint.streams, checkpoint.root):
            return "edited"
        return None

    def _flush(self) -> Bad | None:
        pending, self._pending = self._pending, []
        if pending and not is_signed(pending[-1], self._public):
            first = next(signed for signed in pending if not is_signed(signed, self._public))
            self._fail(first.checkpoint.sequence, "bad signature")
        return self.bad

    def _fail(self, sequence: int, reason: Reason) -> Bad:
        if self.bad is None:
            self.bad = Bad(CHECKPOINTS, sequence, reason)
        return self.bad
