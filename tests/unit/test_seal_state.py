"""The seal state machine, step by step and in any order."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from secrethub.errors import Conflict, DecryptionFailed, NotInitialised, WrongShare
from secrethub.ids import is_uuid
from secrethub.seal.slots import make_shamir_slot
from secrethub.seal.state import Opened, Phase, SealMachine

CLUSTER = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"
ROOT = bytes(range(32))
SLOT, SHARES = make_shamir_slot(CLUSTER, ROOT, 5, 3)
SECOND, SECOND_SHARES = make_shamir_slot(CLUSTER, ROOT, 4, 2)
_, STRANGERS = make_shamir_slot(CLUSTER, ROOT, 5, 3)
SEALED = SealMachine().initialised((SLOT,))


def fed(machine: SealMachine, *shares: bytes) -> SealMachine:
    for share in shares:
        result = machine.feed(share)
        assert isinstance(result, SealMachine)
        machine = result
    return machine


def refused(machine: SealMachine, share: bytes) -> str:
    with pytest.raises(WrongShare) as caught:
        machine.feed(share)
    return caught.value.reason


def test_the_way_from_nothing_to_unsealed_and_back() -> None:
    """A cluster is initialised sealed, opens with the last share, and can be sealed again."""
    assert SealMachine().phase is Phase.UNINITIALISED
    assert (SEALED.phase, SEALED.progress, SEALED.nonce) == (Phase.SEALED, 0, "")
    waiting = fed(SEALED, SHARES[4], SHARES[1])
    assert (waiting.phase, waiting.progress) == (Phase.UNSEALING, 2)
    opened = waiting.feed(SHARES[0])
    assert isinstance(opened, Opened)
    assert opened.root_key == ROOT
    assert (opened.machine.phase, opened.machine.progress, opened.machine.nonce) == (Phase.UNSEALED, 0, "")
    again = opened.machine.sealed()
    assert again == SEALED


def test_one_attempt_has_one_nonce() -> None:
    """The nonce comes with the first share, stays until reset, and is new for the next attempt."""
    first = fed(SEALED, SHARES[0])
    second = fed(first, SHARES[1])
    assert is_uuid(first.nonce)
    assert second.nonce == first.nonce
    assert second.reset().nonce == ""
    assert fed(second.reset(), SHARES[0]).nonce != first.nonce


def test_a_wrong_share_changes_nothing() -> None:
    """Malformed, unknown and repeated shares are named and leave progress and nonce as they were."""
    machine = fed(SEALED, SHARES[0], SHARES[1])
    assert refused(machine, b"short") == "malformed"
    assert refused(machine, bytes(33)) == "malformed"
    assert refused(machine, STRANGERS[0]) == "unknown"
    assert refused(machine, SHARES[0]) == "duplicate"
    assert machine.progress == 2
    assert isinstance(machine.feed(SHARES[2]), Opened)


def test_a_wrong_first_share_starts_no_attempt() -> None:
    """A refused share does not even make a nonce."""
    assert refused(SEALED, STRANGERS[0]) == "unknown"
    assert (SEALED.phase, SEALED.nonce) == (Phase.SEALED, "")


def test_the_last_share_may_be_given_again() -> None:
    """The machine before the last share is unchanged, so a failed commit costs nobody a share."""
    waiting = fed(SEALED, SHARES[0], SHARES[1])
    first, second = waiting.feed(SHARES[2]), waiting.feed(SHARES[2])
    assert isinstance(first, Opened)
    assert first == second
    assert waiting.progress == 2


def test_an_unsealed_machine_takes_repetitions() -> None:
    """A share given to an unsealed machine changes nothing, for the answer to the last may be lost."""
    unsealed = SEALED.unsealed()
    assert unsealed.feed(SHARES[0]) is unsealed
    assert unsealed.feed(b"anything") is unsealed


def test_reset_forgets_the_shares() -> None:
    """After a reset the same shares count anew; without an attempt it does nothing."""
    machine = fed(SEALED, SHARES[0], SHARES[1]).reset()
    assert machine == SEALED
    assert machine.reset() == SEALED
    assert fed(machine, SHARES[0]).progress == 1


def test_sealing_and_unsealing_by_a_peer_forget_the_shares() -> None:
    """Neither direction keeps a share of a broken-off attempt."""
    machine = fed(SEALED, SHARES[0], SHARES[1])
    assert machine.sealed() == SEALED
    assert machine.unsealed().sealed() == SEALED


def test_transitions_that_do_not_exist_are_refused() -> None:
    """Nothing can be done before init, init happens once, and an unsealed cluster has no attempt."""
    nothing = SealMachine()
    with pytest.raises(NotInitialised):
        nothing.feed(SHARES[0])
    for transition in (nothing.reset, nothing.sealed, nothing.unsealed):
        with pytest.raises(NotInitialised):
            transition()
    with pytest.raises(Conflict):
        SEALED.initialised((SLOT,))
    with pytest.raises(Conflict):
        SEALED.unsealed().reset()
    with pytest.raises(ValueError, match="slot"):
        nothing.initialised(())


def test_an_edited_slot_keeps_the_shares() -> None:
    """If the right shares do not open the slot's row, that is said, and the progress stays."""
    machine = SealMachine().initialised((replace(SLOT, wrapped_root=SLOT.wrapped_root[:-1] + b"!"),))
    waiting = fed(machine, SHARES[0], SHARES[1])
    with pytest.raises(DecryptionFailed):
        waiting.feed(SHARES[2])
    assert waiting.progress == 2


def test_slots_stand_side_by_side() -> None:
    """Shares count for their own slot; whichever is complete first opens, and the nearest is shown."""
    machine = SealMachine().initialised((SLOT, SECOND))
    assert machine.slot == SLOT
    machine = fed(machine, SHARES[0], SHARES[1], SECOND_SHARES[0])
    assert (machine.slot, machine.progress) == (SLOT, 2)
    assert refused(machine, SECOND_SHARES[0]) == "duplicate"
    opened = machine.feed(SECOND_SHARES[3])
    assert isinstance(opened, Opened)
    assert opened.root_key == ROOT


def test_a_slot_of_one_share_opens_at_once() -> None:
    """With a threshold of 1 the first share opens."""
    slot, (share,) = make_shamir_slot(CLUSTER, ROOT, 1, 1)
    opened = SealMachine().initialised((slot,)).feed(share)
    assert isinstance(opened, Opened)
    assert opened.root_key == ROOT


def test_shares_and_root_key_neither_show_nor_travel() -> None:
    """Machines and what they open hide key bytes in text and refuse pickling and copying."""
    waiting = fed(SEALED, SHARES[0], SHARES[1])
    opened = waiting.feed(SHARES[2])
    for value in (waiting, opened, waiting._given, *waiting._given._given):
        for secret in (ROOT, *SHARES):
            assert repr(secret)[2:-1] not in repr(value)
            assert secret.hex() not in repr(value)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(value)
        with pytest.raises(TypeError, match="not pickled"):
            copy.copy(value)


class AnyOrder(RuleBasedStateMachine):
    """Shares, wrong shares, resets and seals in any order, against a set of given indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = SEALED
        self.given: set[int] = set()

    @rule(index=st.integers(0, 4))
    @precondition(lambda self: self.machine.phase is not Phase.UNSEALED)
    def give(self, index: int) -> None:
        """A right share counts once; the third opens."""
        if index in self.given:
            assert refused(self.machine, SHARES[index]) == "duplicate"
            return
        result: Any = self.machine.feed(SHARES[index])
        self.given.add(index)
        if len(self.given) == 3:
            assert result.root_key == ROOT
            self.machine, self.given = result.machine, set()
        else:
            self.machine = result

    @rule(index=st.integers(0, 4))
    @precondition(lambda self: self.machine.phase is not Phase.UNSEALED)
    def give_wrong(self, index: int) -> None:
        """A stranger's share is refused."""
        assert refused(self.machine, STRANGERS[index]) == "unknown"

    @rule()
    @precondition(lambda self: self.machine.phase is not Phase.UNSEALED)
    def reset(self) -> None:
        """A reset forgets."""
        self.machine, self.given = self.machine.reset(), set()

    @rule()
    def seal(self) -> None:
        """Sealing forgets, from anywhere."""
        self.machine, self.given = self.machine.sealed(), set()

    @invariant()
    def progress_is_what_was_given(self) -> None:
        """Progress, phase and nonce always agree with the shares that were accepted."""
        assert self.machine.progress == len(self.given) < 3
        assert bool(self.machine.nonce) == bool(self.given)
        if self.machine.phase is not Phase.UNSEALED:
            assert self.machine.phase is (Phase.UNSEALING if self.given else Phase.SEALED)


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=20)
TestAnyOrder = AnyOrder.TestCase
