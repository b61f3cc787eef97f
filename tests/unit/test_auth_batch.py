"""Batch tokens: what is sealed into one comes out of it, in the same cluster, and of no other text."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from secrethub.auth.batch import BatchToken, open_batch, seal_batch
from secrethub.crypto.keyring import Keyring
from secrethub.errors import DecryptionFailed, InvalidRequest

TOLD = BatchToken(
    display_name="token-job",
    policies=("a", "default"),
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    ttl=90,
    path="auth/token/create",
    meta={"k": "v"},
    parent="ab" * 32,
    bound_cidrs=("10.0.0.0/8",),
    role="r",
)


def test_there_and_back() -> None:
    """What went in comes out, also after the data key was rotated."""
    ring = Keyring.generate()
    text = seal_batch(ring, "c1", TOLD)
    assert text.startswith("hvb.")
    assert open_batch(ring, "c1", text) == TOLD
    assert open_batch(ring.rotated(), "c1", text) == TOLD
    assert TOLD.expires_at == TOLD.created_at + timedelta(seconds=90)
    assert seal_batch(ring, "c1", TOLD) != text


def test_other_clusters_and_keys() -> None:
    """Another cluster's token, or another keyring's, does not open."""
    ring = Keyring.generate()
    text = seal_batch(ring, "c1", TOLD)
    for keyring, cluster in ((ring, "c2"), (Keyring.generate(), "c1")):
        with pytest.raises(DecryptionFailed):
            open_batch(keyring, cluster, text)


def test_every_changed_bit() -> None:
    """No bit can be changed, and no byte added or taken away."""
    ring = Keyring.generate()
    text = seal_batch(ring, "c1", TOLD)
    raw = base64.urlsafe_b64decode(text[4:] + "===")
    changed = [bytes([*raw[:n], raw[n] ^ 1, *raw[n + 1 :]]) for n in range(len(raw))]
    texts = ["hvb." + base64.urlsafe_b64encode(one).decode().rstrip("=") for one in changed]
    for wrong in (*texts, text[:-1], text + "A", text + "\n", text + "=", "hvb.", "hvb.ä", "hvb." + "A" * 40):
        with pytest.raises(DecryptionFailed):
            open_batch(ring, "c1", wrong)


def test_too_much_for_a_header() -> None:
    """A token that would not fit into a header is refused when it is made."""
    meta = {f"k{n}": "v" * 500 for n in range(60)}
    large = BatchToken(
        display_name="token",
        policies=(),
        created_at=TOLD.created_at,
        ttl=1,
        path="",
        meta=meta,
        parent=None,
        bound_cidrs=(),
        role="",
    )
    with pytest.raises(InvalidRequest, match="cannot hold"):
        seal_batch(Keyring.generate(), "c1", large)
