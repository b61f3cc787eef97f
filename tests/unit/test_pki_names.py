"""Names that may stand in a certificate, and those that may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.pki import names

CLUSTER = "9f0f1a6e-7a3b-4a36-9c0a-0a4de1f6d001"
AGENT = "3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10"


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("App.Example.COM", "app.example.com"),
        ("localhost", "localhost"),
        ("a.b-c.d1", "a.b-c.d1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
    ],
)
def test_host_names_are_kept_in_lower_case(given_name: str, kept: str) -> None:
    """A DNS name is accepted in any case and stands in lower case."""
    assert names.dns_name(given_name) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "*.example.com",
        "w*.example.com",
        "-a.example",
        "a-.example",
        "under_score.example",
        "a b",
        "a\nb",
        "a\n",
        "a\x00.example.com",
        "bücher.example",
        "\u212aelvin.example",  # KELVIN SIGN, which lower() would turn into "k"
        "10.0.0.1",
        "0x7f000001",
        "example.1",
        "a@example.com",
        "a,b",
        "secrethub://x/agent/y",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
    ],
)
def test_what_is_no_host_name_is_refused(text: str) -> None:
    """Wildcards, addresses, controls, other scripts and malformed names are no DNS names."""
    with pytest.raises(InvalidRequest):
        names.dns_name(text)


@pytest.mark.parametrize("text", ["10.1.2.3", "127.0.0.1", "2001:db8::1", "::1"])
def test_plain_addresses_are_accepted(text: str) -> None:
    """One host's address is accepted as it is."""
    assert str(names.ip_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.0/8",
        "10.0.0.1/32",
        "::/0",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "010.0.0.1",
        "1.2.3",
        "167772161",
        " 10.0.0.1",
        "10.0.0.1\n",
        "app.example.com",
        "１０.0.0.1",
    ],
)
def test_what_is_not_one_address_is_refused(text: str) -> None:
    """Networks, zones, disguised IPv4 addresses and group addresses are refused."""
    with pytest.raises(InvalidRequest):
        names.ip_address(text)


def test_uris_read_back_as_they_were_written() -> None:
    """Each kind of URI is read by its own function and by no other."""
    agent = names.agent_uri(CLUSTER, AGENT)
    gateway = names.gateway_uri(CLUSTER, "node-1")
    authority = names.authority_uri(CLUSTER, "root")
    assert names.parse_agent_uri(agent) == (CLUSTER, AGENT)
    assert names.parse_gateway_uri(gateway) == (CLUSTER, "node-1")
    assert names.parse_authority_uri(authority) == (CLUSTER, "root")
    assert gateway.startswith(names.gateway_prefix(CLUSTER))
    for read, others in (
        (names.parse_agent_uri, (gateway, authority)),
        (names.parse_gateway_uri, (agent, authority)),
        (names.parse_authority_uri, (agent, gateway)),
    ):
        for other in others:
            with pytest.raises(InvalidRequest):
                read(other)


@pytest.mark.parametrize(
    "uri",
    [
        f"secrethub://{CLUSTER}/agent/{AGENT.upper()}",
        f"secrethub://{CLUSTER}/agent/{AGENT}/",
        f"secrethub://{CLUSTER}/agent/{AGENT}\n",
        f"secrethub://{CLUSTER}/agent/{AGENT}?x=1",
        f"secrethub://{CLUSTER}/agent/../agent/{AGENT}",
        f"secrethub://{CLUSTER}/agent/{{{AGENT}}}",
        f"secrethub://../agent/{AGENT}",
        f"secrethub:///agent/{AGENT}",
        f"secrethub://user@{CLUSTER}/agent/{AGENT}",
        f"SECRETHUB://{CLUSTER}/agent/{AGENT}",
        f"https://{CLUSTER}/agent/{AGENT}",
        f"secrethub://{CLUSTER}/agent/not-a-uuid",
    ],
)
def test_an_agent_uri_has_one_spelling(uri: str) -> None:
    """Anything but the exact spelling names no agent."""
    with pytest.raises(InvalidRequest):
        names.parse_agent_uri(uri)


@pytest.mark.parametrize("node", ["", ".", "..", "a/b", "a b", "n\n", "ü", "a" * 65])
def test_a_node_name_must_fit_into_a_uri(node: str) -> None:
    """A node name cannot add a segment, a dot segment or a control character to the URI."""
    with pytest.raises(InvalidRequest):
        names.gateway_uri(CLUSTER, node)


@given(st.text())
def test_an_accepted_name_is_canonical(text: str) -> None:
    """Whatever is accepted as a DNS name is accepted again, unchanged."""
    try:
        once = names.dns_name(text)
    except InvalidRequest:
        return
    assert names.dns_name(once) == once


@given(st.text(max_size=200))
def test_refusals_show_nothing_raw(text: str) -> None:
    """The message of a refusal holds printable ASCII only, so that no log line can be forged."""
    with pytest.raises(InvalidRequest) as refused:
        names.dns_name(text + " ")
    assert refused.value.message.isascii()
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 1200
