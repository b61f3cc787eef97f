"""What an agent keeps of the ledger: only what goes on from it, signed with the key that it knows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.state import StateDirectory, open_state
from agent.witness import LedgerWitness
from secrethub.audit.checkpoint import Checkpoint, Signed, sign
from secrethub.audit.event import GENESIS
from secrethub.audit.witness import file_name, pack, read_witness
from secrethub.errors import IntegrityFailure, Misconfigured
from secrethub.wire import messages as wire

KEY = Ed25519PrivateKey.generate()
CLUSTER = "c1"


def made(sequence: int, *, timeline: int = 1, at: int = 1, cluster: str = CLUSTER) -> Signed:
    """A checkpoint that the notary has signed."""
    fields = {"cluster": cluster, "timeline": timeline, "sequence": sequence, "at": at, "epoch": 1}
    return sign(KEY, Checkpoint(**fields, previous=GENESIS, streams=0, root=GENESIS, heads=()))


def message(signed: Signed, key: Ed25519PrivateKey = KEY) -> wire.Checkpoint:
    """What a gateway shows."""
    return wire.Checkpoint(signed=pack(signed), public=key.public_key().public_bytes_raw())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    """An agent's state directory."""
    with open_state(tmp_path / "state") as opened:
        yield opened


async def written(witness: LedgerWitness, state: StateDirectory, wanted: Signed) -> None:
    """Run the witness until its file has a checkpoint."""
    task = asyncio.create_task(witness.run())
    content = None
    for _ in range(1000):
        content = state.read(file_name(CLUSTER))
        if content is not None and read_witness(content).signed == wanted:
            break
        await asyncio.sleep(0.01)
    assert content is not None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_newest_is_kept_and_outlives_the_process(state: StateDirectory) -> None:
    """What was shown is in a private file, is told to Core, and only something newer takes its place."""
    witness = LedgerWitness(state, CLUSTER)
    assert witness.shown == b""
    for signed in (made(7), made(8), made(8), made(3, timeline=2)):
        witness.take(message(signed))
        assert witness.shown == pack(signed)
    await written(witness, state, made(3, timeline=2))
    assert (state.path / file_name(CLUSTER)).stat().st_mode & 0o077 == 0
    assert LedgerWitness(state, CLUSTER).shown == pack(made(3, timeline=2))
    assert LedgerWitness(state, "c2").shown == b""


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (message(made(7)), "older"),
        (message(made(99, timeline=0)), "older"),
        (message(made(8, at=2)), "in its place"),
        (message(made(9, cluster="c2")), "not signed"),
        (message(Signed(made(9).checkpoint, made(10).signature)), "not signed"),
        (wire.Checkpoint(signed=pack(made(9)), public=bytes(32)), "another key"),
        (wire.Checkpoint(signed=b"x", public=bytes(32)), "no checkpoint"),
    ],
)
async def test_what_cannot_be_is_refused(state: StateDirectory, shown: wire.Checkpoint, why: str) -> None:
    """A gateway that shows less, another branch, another's, or something forged changes nothing."""
    witness = LedgerWitness(state, CLUSTER)
    witness.take(message(made(8)))
    with pytest.raises(IntegrityFailure, match=why):
        witness.take(shown)
    assert witness.shown == pack(made(8))


async def test_a_forged_key_is_of_no_use(state: StateDirectory) -> None:
    """Who signs with a key of his own replaces nothing, once an agent knows the notary's."""
    witness = LedgerWitness(state, CLUSTER)
    witness.take(message(made(8)))
    other = Ed25519PrivateKey.generate()
    with pytest.raises(IntegrityFailure, match="another key"):
        witness.take(message(sign(other, made(9).checkpoint), other))
    with pytest.raises(IntegrityFailure, match="not signed"):
        witness.take(message(sign(other, made(9).checkpoint)))


def test_a_damaged_file_is_said(state: StateDirectory) -> None:
    """An agent whose file cannot be read does not begin anew in silence."""
    state.write(file_name(CLUSTER), msgspec.json.encode({"public": "x"}))
    with pytest.raises(Misconfigured, match="would not be noticed"):
        LedgerWitness(state, CLUSTER)
