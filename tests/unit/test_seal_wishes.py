"""What wishes make of the slots: whoever can decide goes on deciding, and something opens, in any order."""

from __future__ import annotations

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from secrethub.errors import InvalidRequest
from secrethub.ids import new_uuid
from secrethub.seal.slots import KmsSlot, ShamirSlot, Slot
from secrethub.seal.wishes import Rekey, deciding, settled, with_new_set, with_only_set, without

CLUSTER = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"


def shares(*, opens: bool) -> ShamirSlot:
    """A set of shares."""
    return ShamirSlot(
        slot_id=new_uuid(),
        cluster_id=CLUSTER,
        shares=3,
        threshold=2,
        share_digests=(),
        public=b"",
        wrapped_root=b"",
        opens=opens,
    )


def service() -> KmsSlot:
    """A slot of a key service."""
    return KmsSlot(
        slot_id=new_uuid(),
        cluster_id=CLUSTER,
        kind="awskms",
        service="main",
        wrapped_secret=b"",
        public=b"",
        wrapped_root=b"",
    )


class AnyOrder(RuleBasedStateMachine):
    """Rekeys whose answer arrives or does not, and slots that come and go, by shares that people have."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[Slot] = [shares(opens=True)]
        self.had = {self.slots[0].slot_id}
        """The sets whose shares people have."""

    def authorised(self, data: st.DataObject) -> ShamirSlot:
        """One of the sets that count, of those that people have."""
        return data.draw(st.sampled_from([slot for slot in deciding(self.slots) if slot.slot_id in self.had]))

    @rule(data=st.data(), arrives=st.booleans(), slot=st.booleans())
    def rekey(self, data: st.DataObject, *, arrives: bool, slot: bool) -> None:
        """Old shares make new ones, which arrive or do not."""
        wish = Rekey(shares=3, threshold=2, recovery=not deciding(self.slots)[-1].opens, slot=slot)
        with contextlib.suppress(InvalidRequest):
            wish.check(deciding(self.slots)[-1])
            new = shares(opens=wish.opens)
            self.slots = with_new_set(self.slots, new, self.authorised(data))
            if arrives:
                self.had.add(new.slot_id)

    @rule(recovery=st.booleans())
    def verified(self, *, recovery: bool) -> None:
        """New shares were given back before they count."""
        wish = Rekey(shares=3, threshold=2, recovery=recovery)
        with contextlib.suppress(InvalidRequest):
            wish.check(deciding(self.slots)[-1])
            new = shares(opens=wish.opens)
            self.slots = with_only_set(self.slots, new)
            self.had.add(new.slot_id)

    @rule()
    def settle(self) -> None:
        """Old shares go once the new ones arrived."""
        if deciding(self.slots)[-1].slot_id in self.had:
            self.slots = settled(self.slots)

    @rule()
    def add(self) -> None:
        """A key service is added."""
        self.slots = [*self.slots, service()]

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A slot is removed, if that can be; the shares of a set that is removed open nothing any more."""
        authorised = self.authorised(data)
        found = data.draw(st.sampled_from(self.slots))
        with contextlib.suppress(InvalidRequest):
            without(self.slots, found.slot_id)
            self.slots = without(self.slots, found.slot_id, authorised)
            assert not any(slot.opens for slot in self.slots if slot.slot_id == found.slot_id)
            if isinstance(found, ShamirSlot) and not found.leaving:
                assert not any(slot.opens for slot in deciding(self.slots))

    @invariant()
    def somebody_decides(self) -> None:
        """People have a whole set of shares that counts; at most one set of those that count is leaving."""
        sets = deciding(self.slots)
        assert {slot.slot_id for slot in sets} & self.had
        assert [slot.leaving for slot in sets] in ([False], [True, False])

    @invariant()
    def something_opens(self) -> None:
        """A key service, or shares that people have, opens the cluster."""
        sure = [slot for slot in self.slots if isinstance(slot, KmsSlot) or slot.slot_id in self.had]
        assert any(slot.opens for slot in sure)


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=200, stateful_step_count=20)
TestAnyOrder = AnyOrder.TestCase


def test_who_removes_a_slot_with_the_newest_shares_has_them() -> None:
    """Shares that are leaving go then: a rekey by them, whose answer is lost, would take the newest away."""
    old, new, key = shares(opens=False), shares(opens=True), service()
    slots = with_new_set([key, old], new, old)
    assert without(slots, key.slot_id, new) == [new]
