"""A ceremony, step by step in any order: as many shares of one set as count, each once, for this attempt."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from secrethub.errors import DecryptionFailed, InvalidRequest, WrongShare
from secrethub.ids import new_uuid
from secrethub.seal.ceremony import Ceremony, Quorum
from secrethub.seal.slots import make_share_set

CLUSTER = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"
OLD, OLD_SHARES = make_share_set(CLUSTER, 4, 3, opens=True)
NEW, NEW_SHARES = make_share_set(CLUSTER, 3, 2, opens=True)
_, STRANGERS = make_share_set(CLUSTER, 3, 2, opens=True)
SETS = {OLD.slot_id: (OLD, OLD_SHARES), NEW.slot_id: (NEW, NEW_SHARES)}


class AnyOrder(RuleBasedStateMachine):
    """Shares of two sets that count, and of strangers, for this attempt and for others."""

    def __init__(self) -> None:
        super().__init__()
        self.ceremony = Ceremony(wish="any", slots=(replace(OLD, leaving=True), NEW))
        self.given: dict[str, set[int]] = {OLD.slot_id: set(), NEW.slot_id: set()}

    @rule(name=st.sampled_from(sorted(SETS)), index=st.integers(0, 3))
    def give(self, name: str, index: int) -> None:
        """A share counts once, for its own set; the last one that it takes gives the quorum of that set."""
        slot, shares = SETS[name]
        share = shares[index % len(shares)]
        if index % len(shares) in self.given[name]:
            with pytest.raises(WrongShare) as refused:
                self.ceremony.give(share, self.ceremony.nonce)
            assert refused.value.reason == "duplicate"
            return
        after = self.ceremony.give(share, f" {self.ceremony.nonce.upper()}\n")
        if len(self.given[name]) + 1 == slot.threshold:
            assert isinstance(after, Quorum)
            assert after.slot.slot_id == name
            return  # Whoever has it done begins no other; the former state stays as it was.
        assert isinstance(after, Ceremony)
        self.given[name].add(index % len(shares))
        self.ceremony = after

    @rule(index=st.integers(0, 2))
    def give_a_strangers(self, index: int) -> None:
        """A share of no set that counts is refused."""
        with pytest.raises(WrongShare) as refused:
            self.ceremony.give(STRANGERS[index], self.ceremony.nonce)
        assert refused.value.reason == "unknown"

    @rule(nonce=st.one_of(st.just(""), st.just(new_uuid()), st.text(max_size=40)), index=st.integers(0, 2))
    def give_for_another(self, nonce: str, index: int) -> None:
        """A share that is meant for another attempt is refused, right or wrong."""
        with pytest.raises(InvalidRequest, match="nonce"):
            self.ceremony.give(NEW_SHARES[index], nonce)

    @invariant()
    def progress_is_of_the_nearest_set(self) -> None:
        """What is shown is how many were given of the set of which most were."""
        assert self.ceremony.progress == max(len(indexes) for indexes in self.given.values())


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=20)
TestAnyOrder = AnyOrder.TestCase


def test_shares_of_an_edited_set_authorise_nothing() -> None:
    """Right shares of a set whose row has another public key are no quorum."""
    ceremony = Ceremony(wish="any", slots=(replace(NEW, public=OLD.public),))
    after = ceremony.give(NEW_SHARES[0], ceremony.nonce)
    assert isinstance(after, Ceremony)
    with pytest.raises(DecryptionFailed):
        after.give(NEW_SHARES[2], after.nonce)
    assert after.progress == 1


def test_shares_neither_show_nor_travel() -> None:
    """A ceremony hides the shares that were given, and is neither pickled nor copied."""
    ceremony = Ceremony(wish="any", slots=(NEW,))
    after = ceremony.give(NEW_SHARES[0], ceremony.nonce)
    assert repr(NEW_SHARES[0])[2:-1] not in repr(after)
    for travel in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="not pickled"):
            travel(after)
