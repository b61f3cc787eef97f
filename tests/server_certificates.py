"""What a client makes of a server's certificate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store


def check_server(
    leaf: x509.Certificate,
    between: Sequence[x509.Certificate],
    anchor: x509.Certificate,
    name: str,
    now: datetime,
) -> None:
    """Check the certificate of a server reached as ``name`` (a DNS name) against an anchor."""
    policy = PolicyBuilder().store(Store([anchor])).time(now)
    policy.build_server_verifier(x509.DNSName(name)).verify(leaf, list(between))
