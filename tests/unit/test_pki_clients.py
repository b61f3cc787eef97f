"""Client certificates of private authorities: which hold, and what is read from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from secrethub.engines.cert.matching import _matches, objection_to_names
from secrethub.engines.cert.role import PATTERNS, CertRole
from secrethub.errors import PermissionDenied
from secrethub.pki.clients import check_client_of, text_extension
from tests.private_authority import Issued, certify

ROOT = certify("Root", authority=True)
BETWEEN = certify("Intermediate", ROOT, authority=True)
OID = "1.3.6.1.4.1.99999.1"


def holds(client: Issued, *anchors: Issued, between: tuple[Issued, ...] = ()) -> bool:
    try:
        check_client_of(
            client.certificate,
            [one.certificate for one in between],
            [one.certificate for one in anchors],
            datetime.now(UTC),
        )
    except PermissionDenied:
        return False
    return True


def test_chains() -> None:
    """A certificate holds below its authority, by way of one that came along too, or pinned itself."""
    client, below = certify("a", ROOT), certify("b", BETWEEN)
    assert holds(client, ROOT)
    assert holds(below, ROOT, between=(BETWEEN,))
    assert holds(below, BETWEEN)
    assert holds(client, client)
    assert not holds(below, ROOT)
    assert not holds(client, BETWEEN)
    assert not holds(client, certify("Root", authority=True))


@pytest.mark.parametrize(
    "client",
    [
        certify("late", ROOT, days=-1),
        certify("early", ROOT, days=40),
        certify("server", ROOT, uses=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    ],
    ids=lambda client: client.certificate.subject.rfc4514_string(),
)
def test_what_does_not_hold(client: Issued) -> None:
    """Expired, not yet valid, and for servers only: neither below its authority nor pinned itself."""
    assert not holds(client, ROOT)
    assert not holds(client, client)


def test_issuers_are_authorities() -> None:
    """A certificate that is no authority makes no others, whether it is trusted itself or not."""
    leaf = certify("leaf", ROOT)
    forged = certify("forged", leaf)
    assert not holds(forged, ROOT, between=(leaf,))
    assert not holds(forged, leaf)
    no_signing = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    weak = certify("weak", ROOT, authority=True, extra=(no_signing,))
    assert not holds(certify("below", weak), ROOT, between=(weak,))


@pytest.mark.parametrize(
    ("der", "text"),
    [
        (b"\x0c\x03abc", "abc"),
        (b"\x16\x00", ""),
        (b"\x0c\x81\x80" + b"x" * 128, "x" * 128),
        (b"\x0c\x03abcd", None),
        (b"\x0c\x04abc", None),
        (b"\x0c\x84\x00\x00\x00\x03abc", None),
        (b"\x04\x03abc", None),
        (b"\x0c\x01\xff", None),
        (b"", None),
    ],
)
def test_text_of_extensions(der: bytes, text: str | None) -> None:
    """An extension that is one ASN.1 string is its text; anything else is none."""
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), der)
    assert text_extension(certify("a", ROOT, extra=(value,)).certificate, OID) == text


def lets_in(client: Issued, **conditions: tuple[str, ...]) -> bool:
    role = CertRole(name="r", uuid="0", **conditions)  # type: ignore[arg-type]
    return not objection_to_names(role, client.certificate)


NAMED = "db.example.com"
KINDS: dict[str, tuple[Callable[[str], x509.GeneralName], set[str]]] = {
    "dns": (x509.DNSName, {"allowed_dns_sans", "allowed_names"}),
    "mail": (x509.RFC822Name, {"allowed_email_sans", "allowed_names"}),
    "uri": (x509.UniformResourceIdentifier, {"allowed_uri_sans"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_name_of_one_kind_is_none_of_another(name: str) -> None:
    """The same text as a common name, a unit, or an alternative name of another kind is not that name."""
    kind, conditions = KINDS[name]
    client = certify("web", ROOT, extra=(x509.SubjectAlternativeName([kind("other"), kind(NAMED)]),))
    for condition in {*PATTERNS} - {"required_extensions"}:
        assert lets_in(client, **{condition: (NAMED,)}) == (condition in conditions), condition
    for condition in conditions:
        assert lets_in(client, **{condition: (NAMED,), "allowed_common_names": ("w*",)})
        assert not lets_in(client, **{condition: (NAMED,), "allowed_common_names": ("x*",)})


@pytest.mark.parametrize(
    "name",
    [
        "DB.example.com",
        "db.example.com.",
        " db.example.com",
        "xdb.example.com",
        "db.example.com.evil.org",
        "db.example.com\x00.evil.org",
        "d\u0431.example.com",
        "*.example.com",
        "*",
    ],
)
def test_names_that_look_alike(name: str) -> None:
    """A name that is nearly the one that is let in is another; a star in a certificate stands for nothing."""
    assert not lets_in(certify(name, ROOT), allowed_common_names=(NAMED,))
    assert not lets_in(certify(name, ROOT), allowed_names=(NAMED,))
    if name.isascii():
        client = certify("web", ROOT, extra=(x509.SubjectAlternativeName([x509.DNSName(name)]),))
        assert not lets_in(client, allowed_dns_sans=(NAMED,))


def test_several_common_names() -> None:
    """Of two common names neither counts, in whichever order they stand."""
    for names in ((NAMED, "web"), ("web", NAMED)):
        client = certify(names[0], ROOT, also=names[1:])
        assert not lets_in(client, allowed_common_names=(NAMED,))
        assert not lets_in(client, allowed_names=(NAMED,))
    assert lets_in(certify(NAMED, ROOT), allowed_common_names=(NAMED,))


@given(st.lists(st.text(alphabet="ab*", max_size=4), max_size=4), st.text(alphabet="ab", max_size=8))
def test_patterns(parts: list[str], name: str) -> None:
    """Stars stand for any text, and nothing else does; every name matches itself with parts starred out."""
    pattern = "*".join(parts)
    assert _matches(name, name)
    assert _matches("*", name)
    assert not _matches(pattern.replace("*", "c"), name) or "*" not in pattern
    assert _matches(f"{name[:2]}*{name[6:]}", name)


def test_patterns_take_one_pass() -> None:
    """A pattern of many stars is no trap."""
    assert not _matches("*a" * 200 + "b", "a" * 50_000)
    assert not _matches("a*a", "a")
    assert _matches("a**a", "aa")
