"""The certificate that a node shows on 4443 before the built-in CA can be used: self-signed.

Nothing vouches for it, so its fingerprint is printed at the first start and pinned by clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from secrethub.pki import keys
from secrethub.pki.names import dns_name, ip_address

_LIFETIME = timedelta(days=3650)


def boot_certificate(
    node: str, names: Sequence[str], addresses: Sequence[str], now: datetime
) -> tuple[bytes, bytes]:
    """Make a boot certificate.

    Args:
        node: the node's name.
        names: DNS names of the node.
        addresses: its IP addresses.
        now: the instant of making it.

    Returns:
        Certificate and private key, PEM.

    Raises:
        InvalidRequest: a name or address cannot stand in a certificate.
    """
    key = keys.generate("ecdsa-p256")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"secrethub boot {node}"[:64])])
    alternatives: list[x509.GeneralName] = [x509.DNSName(dns_name(name)) for name in names]
    alternatives += [x509.IPAddress(ip_address(address)) for address in addresses]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM), keys.private_pem(key)
