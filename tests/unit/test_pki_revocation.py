"""Which certificates of an agent are good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from secrethub.errors import PermissionDenied
from secrethub.pki.revocation import Standing, serials_to_json, standing_from_json

NOW = datetime(2026, 3, 1, tzinfo=UTC)
END = NOW + timedelta(days=90)


def _first() -> Standing:
    return Standing(status="active", serials={}).enrolled("01", END)


def test_the_present_certificate_is_good_until_it_ends() -> None:
    """A certificate in the row is good up to its end and not at it."""
    _first().check("01", END - timedelta(seconds=1))
    with pytest.raises(PermissionDenied, match="expired"):
        _first().check("01", END)
    with pytest.raises(PermissionDenied):
        _first().check("02", NOW)


def test_a_lost_renewal_locks_nobody_out() -> None:
    """After a renewal both certificates are good; renewing again with the old one replaces the unused."""
    once = _first().renewed("01", "02", END, NOW)
    once.check("01", NOW)
    once.check("02", NOW)
    again = once.renewed("01", "03", END, NOW)
    again.check("03", NOW)
    with pytest.raises(PermissionDenied):
        again.check("02", NOW)


def test_at_most_two_certificates_are_good() -> None:
    """Renewing with the new certificate ends the one before it."""
    twice = _first().renewed("01", "02", END, NOW).renewed("02", "03", END, NOW)
    assert set(twice.serials) == {"02", "03"}


def test_an_expired_certificate_renews_nothing() -> None:
    """A certificate that has ended is no proof for a new one."""
    with pytest.raises(PermissionDenied):
        _first().renewed("01", "02", END, END)


def test_revocation_ends_everything() -> None:
    """A revoked agent has no good certificate and renews none."""
    revoked = _first().revoked()
    with pytest.raises(PermissionDenied, match="revoked"):
        revoked.check("01", NOW)
    with pytest.raises(PermissionDenied):
        revoked.renewed("01", "02", END, NOW)
    assert revoked.revoked() == revoked


def test_the_row_reads_back() -> None:
    """What is written into a row reads back as the same standing."""
    standing = _first().renewed("01", "02", END, NOW)
    assert standing_from_json("active", serials_to_json(standing)) == standing


@pytest.mark.parametrize(
    ("status", "serials"), [(None, {}), ("Active", {}), ("active", None), ("active", ["01"])]
)
def test_an_unreadable_row_admits_nobody(status: object, serials: object) -> None:
    """A row in another form is a refusal, never an admission."""
    with pytest.raises(PermissionDenied):
        standing_from_json(status, serials)
