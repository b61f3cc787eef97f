"""Which certificates of a holder are good now. Pure values: the row they live in is kept elsewhere.

A certificate of an agent is good while its serial number stands in the agent's row. At most two
stand there: the one the agent renewed with and the new one, so that an answer lost on the way locks
nobody out. Revocation empties the list, and takes effect with the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from secrethub.errors import PermissionDenied

Status = Literal["active", "revoked"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The standing of a certificate holder.

    Attributes:
        status: whether it is admitted at all.
        serials: serial numbers of its good certificates, with the end of each.
    """

    status: Status
    serials: Mapping[str, datetime]

    def check(self, serial: str, now: datetime) -> None:
        """Admit the certificate with ``serial``.

        Raises:
            PermissionDenied: the holder is revoked, or the certificate is not or no longer good.
        """
        if self.status != "active":
            raise PermissionDenied("the agent is revoked")
        not_after = self.serials.get(serial)
        if not_after is None:
            raise PermissionDenied("the certificate is not one of the agent's present ones")
        if now >= not_after:
            raise PermissionDenied("the certificate has expired")

    def renewed(self, used: str, serial: str, not_after: datetime, now: datetime) -> Standing:
        """Return the standing after a renewal: the certificate used and the new one are good.

        Raises:
            PermissionDenied: the certificate used is not good.
        """
        self.check(used, now)
        return Standing(status="active", serials={used: self.serials[used], serial: not_after})

    def enrolled(self, serial: str, not_after: datetime) -> Standing:
        """Return the standing after a new enrolment: only the new certificate is good."""
        return Standing(status="active", serials={serial: not_after})

    def revoked(self) -> Standing:
        """Return the standing after revocation: nothing is good."""
        return Standing(status="revoked", serials={})


def serials_to_json(standing: Standing) -> dict[str, str]:
    """Return the serial numbers and their ends as JSON values."""
    return {serial: end.astimezone(UTC).isoformat() for serial, end in standing.serials.items()}


def standing_from_json(status: object, serials: object) -> Standing:
    """Read what a row holds.

    Raises:
        PermissionDenied: it is not the form written here, so nobody is admitted by it.
    """
    if status not in {"active", "revoked"} or not isinstance(serials, Mapping):
        raise PermissionDenied("the agent's row cannot be read")
    read = {str(serial): datetime.fromisoformat(str(end)) for serial, end in serials.items()}
    return Standing(status="active" if status == "active" else "revoked", serials=read)
