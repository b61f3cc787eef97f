"""Names at the plain doors, and whose address a request has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from serve.doors import HostCheck, peer_address

OURS = {"localhost", "127.0.0.1", "::1", "vault.internal", "fd00::1"}
CHECK = HostCheck(["Vault.Internal", "[fd00::1]"])


def accepted(host: str | None, origin: str | None = None) -> bool:
    try:
        CHECK.check(host, origin)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("port", ["", ":1", ":65535"])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "VAULT.internal", "[FD00::1]"])
def test_our_names(name: str, port: str) -> None:
    """Loopback's and the operator's names are ours, with any port and in any case."""
    assert accepted(name + port)
    assert accepted(name + port, f"https://{name}{port}")


@given(
    st.text(alphabet="abcdefhlnostuvx.:[]@#/0127- \t%", max_size=30)
    | st.sampled_from(sorted(OURS)).flatmap(lambda name: st.text(max_size=5).map(lambda rest: name + rest))
)
def test_nothing_else(host: str) -> None:
    """Whatever is accepted is one of our names with at most a port."""
    if accepted(host):
        bare = host.strip().lower()
        name, _, port = bare.rpartition("]:") if bare.startswith("[") else bare.partition(":")
        assert not port or port.isdigit()
        assert bare.strip("[]") in OURS or name.strip("[]") in OURS


@given(st.text(max_size=20), st.sampled_from(["localhost", "evil.example"]))
def test_origins(prefix: str, name: str) -> None:
    """An origin is a scheme of the web and one of our names, and nothing more."""
    origin = f"{prefix}://{name}"
    wanted = prefix.lower() in {"http", "https"} and name == "localhost"
    assert accepted("localhost", origin) == wanted
    assert not accepted("localhost", origin + "/")


def test_missing_names() -> None:
    """Without Host nothing is served; an empty or null origin is somebody's."""
    assert not accepted(None)
    assert not accepted("")
    assert not accepted("localhost", "")
    assert not accepted("localhost", "null")
    assert not accepted("l" * 100_000)


@pytest.mark.parametrize(
    ("client", "door", "address"),
    [
        (("127.0.0.1", 5), "http", "127.0.0.1"),
        (["::1", 5], "tls", "::1"),
        (("2001:DB8::1", 5, 0, 0), "tls", "2001:db8::1"),
        (("fe80::1%eth0", 5, 0, 2), "tls", "fe80::1"),
        (("::ffff:10.0.0.1", 5), "tls", "10.0.0.1"),
        (("127.0.0.1", 5), "serve", None),
        (None, "http", None),
        ((), "http", None),
        ("127.0.0.1", "http", None),
        (("/run/x.sock", 0), "http", None),
        (("", 0), "http", None),
        (("localhost", 0), "http", None),
    ],
)
def test_peer_address(client: object, door: str, address: str | None) -> None:
    """The address is the socket's peer, canonical, and unknown behind the ingress."""
    assert peer_address(client, door) == address
