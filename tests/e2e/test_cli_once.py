"""What a server gives out only once is not lost, and one wrong share does not stop the right ones."""

from __future__ import annotations

import base64
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.demo.core import Core, environment
from tests.e2e.shell import Shell
from tests.folders import traversable

STRANGE = base64.b64encode(b"x" * 33).decode()


@pytest.fixture
def core() -> Iterator[Core]:
    """A server in one process, not initialised."""
    with traversable() as folder:
        started = Core(folder, "--single-process", "--uninitialised")
        try:
            started.wait()
            yield started
        finally:
            started.stop()


@pytest.fixture
def shell(core: Core, tmp_path: Path) -> Shell:
    """A shell that knows where the server is."""
    return Shell({**environment(SECRETHUB_ADDR=core.addresses().api), "HOME": str(tmp_path)}, tmp_path)


def full_disk() -> None:
    """Let this process make files, but write nothing into them."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))


def test_keys_are_not_lost(shell: Shell) -> None:
    """Without a place for the keys nothing is initialised; if they cannot be written they are printed."""
    said = shell("operator", "init", "--out", "/nonexistent/keys.json", code=1)
    assert "/nonexistent/keys.json" in said
    shell("status", code=3)
    shell("operator", "init", "--out", str(shell.folder), code=1)
    shell("status", code=3)
    out = shell.folder / "keys.json"
    # The JSON document comes first, the sentence about it on standard error after it.
    said = shell(
        *("operator", "init", "--out", str(out), "--format", "json"),
        code=1,
        before=full_disk,
        PYTHONDONTWRITEBYTECODE="1",
    )
    made, end = json.JSONDecoder().raw_decode(said)
    assert "nowhere else" in said[end:]
    assert [path.name for path in shell.folder.iterdir()] == []
    shares = made["keys_base64"]
    given = "\n".join([STRANGE, "no share at all", "", *shares[:3], "not read any more"])
    said = shell("operator", "unseal", stdin=given, code=1)
    assert "share in line 1: " in said
    assert "share in line 2: " in said
    assert "line 3" not in said
    assert "line 7" not in said
    assert "Threshold" in said
    shell("status")
    _give_out_once(Shell({**shell.environment, "SECRETHUB_TOKEN": made["root_token"]}, shell.folder))


def _give_out_once(shell: Shell) -> None:
    """SecretIDs and keys of certificates are not asked for when there is no place for them."""
    shell("approle", "write", "r")
    before = shell.json("audit", "verify")
    shell("approle", "secret-id", "r", "--out", "/nonexistent/secret-id", code=1)
    shell("approle", "secret-id", "r", "--out", str(shell.folder), code=1)
    (shell.folder / "key.pem").mkdir()
    said = shell("pki", "issue", "a.example.com", "--out-dir", str(shell.folder), code=1)
    assert "key.pem" in said
    after = shell.json("audit", "verify")
    # One for the verification itself.
    assert after["entries"] - before["entries"] <= 2  # type: ignore[index]
    assert [path.name for path in shell.folder.iterdir()] == ["key.pem"]
