"""Holders of secrets, and the hardening of processes that have some."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import msgspec
import pytest

from secrethub.engines.kinds import engines
from secrethub.sensitive import Sensitive, wipe

CANARY = "canary-5b1f"


def test_the_value_is_given_only_when_asked_for() -> None:
    """Text forms of every kind hide the value; reveal gives it."""
    text, data = Sensitive(CANARY), Sensitive(CANARY.encode())
    for sensitive in (text, data):
        for shown in (repr(sensitive), str(sensitive), f"{sensitive}", f"{sensitive!r}", f"{[sensitive]}"):
            assert CANARY not in shown
    assert text.reveal() == CANARY
    assert data.reveal() == CANARY.encode()


def test_it_tells_whether_there_is_a_value() -> None:
    """An empty secret is false, any other true."""
    assert Sensitive("x")
    assert not Sensitive("")
    assert not Sensitive(b"")


def test_it_does_not_travel() -> None:
    """Pickling by every protocol, copying and encoding as JSON or MessagePack fail."""
    sensitive = Sensitive(CANARY)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps({"token": sensitive}, protocol)
    for travel in (copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode, msgspec.msgpack.encode):
        with pytest.raises(TypeError):
            travel(sensitive)


def test_it_has_no_attributes_to_dump() -> None:
    """A debugger's or logger's ``vars()`` finds nothing to show."""
    with pytest.raises(TypeError):
        vars(Sensitive(CANARY))


def test_requests_hide_what_the_ledger_masks() -> None:
    """The ``repr`` of no request's body has a field that the ledger would not show in clear."""
    telling = []
    for engine in engines().values():
        for operation in engine.operations():
            kind = operation.request
            if kind is None:
                continue
            fields = msgspec.structs.fields(kind)
            masked = {one.name for one in fields if one.encode_name not in operation.plain}
            body = kind(**{name: CANARY if name in masked else "" for name in kind.__struct_fields__})
            if CANARY in f"{body!r} {body} {[body]}":
                telling.append((operation.name, kind.__name__, sorted(masked)))
    assert not telling


def test_a_wipe_zeroes_in_place() -> None:
    """The same buffer, seen through any view of it, holds zeros of the same length."""
    buffer = bytearray(CANARY.encode())
    view = memoryview(buffer)
    wipe(buffer)
    assert bytes(view) == bytes(len(CANARY))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_DUMPABLE is Linux's")
def test_a_protected_process_leaves_no_dump() -> None:
    """After protection there are no core dumps, hard limit included, and the process is not dumpable."""
    program = (
        "import ctypes, resource;"
        "from secrethub.sensitive import protect_process;"
        "protect_process();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, 0) 0"
