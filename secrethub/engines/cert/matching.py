"""Whether a certificate's names are those that a role lets in. Pure; nothing here looks at signatures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509

from secrethub.engines.cert.role import CertRole
from secrethub.pki.clients import alternative_names, common_name, organizational_units, text_extension

_DNS, _MAIL, _URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier


def objection_to_names(role: CertRole, leaf: x509.Certificate) -> str:
    """Return which of the role's conditions does not hold, or nothing."""
    names = {
        "allowed_common_names": [common_name(leaf)],
        "allowed_dns_sans": alternative_names(leaf, _DNS),
        "allowed_email_sans": alternative_names(leaf, _MAIL),
        "allowed_uri_sans": alternative_names(leaf, _URI),
        "allowed_organizational_units": organizational_units(leaf),
    }
    any_of = (*names["allowed_common_names"], *names["allowed_dns_sans"], *names["allowed_email_sans"])
    for condition, found in {"allowed_names": list(any_of), **names}.items():
        patterns: Sequence[str] = getattr(role, condition)
        if patterns and not _one_matches(patterns, found):
            return f"{condition} does not hold"
    for required in role.required_extensions:
        oid, _, pattern = required.partition(":")
        text = text_extension(leaf, oid)
        if text is None or not _one_matches([pattern], [text]):
            return "required_extensions does not hold"
    return ""


def _one_matches(patterns: Iterable[str], names: Iterable[str]) -> bool:
    return any(_matches(pattern, name) for name in names if name for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    """Tell whether ``name`` is ``pattern``, where each ``*`` stands for any text; in one pass."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == first
    *middle, last = rest
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
