"""The certificate of 4443 after a restart, and what the documentation tells operators to do about it."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.demo.core import Core, environment
from secrethub.client.settings import parse_address
from secrethub.client.trust import fingerprint, presented_chain
from tests.e2e.shell import Shell
from tests.folders import traversable


@pytest.fixture
def start() -> Iterator[Callable[[], Core]]:
    """Starts a server in one process, each time on the same data and sealed."""
    started: list[Core] = []
    with traversable() as folder:

        def begin() -> Core:
            shutil.rmtree(folder / "tmp", ignore_errors=True)
            started.append(Core(folder, "--single-process", "--uninitialised"))
            started[-1].wait()
            return started[-1]

        yield begin
        started[-1].stop()


def test_the_shares_reach_a_node_that_started_sealed(start: Callable[[], Core], tmp_path: Path) -> None:
    """The root does not fit its certificate; a pin of that one does, and the node itself needs none."""
    core = start()
    own, *_ = map(fingerprint, presented_chain(parse_address(core.addresses().api_tls), 5.0))
    shell = remote(core, tmp_path)
    # What the node itself says of the certificate it was pinned by.
    text = (core.data_dir / "state" / "boot-identity.pem").read_text()
    assert own == fingerprint(ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :]))
    keys = tmp_path / "keys.json"
    shell("--address", core.addresses().api, "operator", "init", "--out", str(keys))
    shares = "\n".join(json.loads(keys.read_text())["keys_base64"][:3])
    shell("operator", "unseal", "--ca-sha256", own, stdin=shares)
    core.wait_for_root()
    root = str(shutil.copy(core.addresses().ca_file or "", tmp_path / "ca.pem"))
    shell("status", SECRETHUB_CACERT=root)

    core.child.stop(60.0)
    core = start()
    shell = remote(core, tmp_path)
    said = shell("operator", "unseal", stdin=shares, code=1, SECRETHUB_CACERT=root)
    assert "no CA file" in said
    said = shell("operator", "unseal", "--ca-sha256", own, stdin=shares, code=1, SECRETHUB_CACERT=root)
    assert "does not hold the root" in said
    shell("status", "--ca-sha256", own, code=2)
    on_the_node = {"SECRETHUB_ADDR": core.addresses().api, "SECRETHUB_CACERT": root}
    first, *others = shares.splitlines()
    shell("operator", "unseal", stdin=first, **on_the_node)
    shell("operator", "unseal", "--ca-sha256", own, stdin="\n".join(others))
    core.wait_for_root()
    shell("status", SECRETHUB_CACERT=root)


def remote(core: Core, folder: Path) -> Shell:
    """A shell whose commands go to HTTPS and trust what they are told to."""
    return Shell({**environment(SECRETHUB_ADDR=core.addresses().api_tls), "HOME": str(folder)}, folder)
