"""Authorities that are none of SecretHub's, and certificates by them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass
class Issued:
    """A certificate with its key and those above it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> str:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def files(self, folder: Path) -> tuple[str, str]:
        """Write chain and key, and return where."""
        chain, key = folder / "client.pem", folder / "client.key"
        chain.write_text(
            "".join(
                one.public_bytes(serialization.Encoding.PEM).decode()
                for one in (self.certificate, *self.above)
            )
        )
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(chain), str(key)


def certify(
    name: str,
    by: Issued | None = None,
    *,
    authority: bool = False,
    dns: tuple[str, ...] = (),
    unit: str = "",
    uses: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    days: int = 10,
    extra: tuple[x509.ExtensionType, ...] = (),
    also: tuple[str, ...] = (),
) -> Issued:
    """Make a key and a certificate for it, self-signed or by an authority; ``also``: more common names."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = key if by is None else by.key
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, one) for one in (name, *also)]
    if unit:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    subject = x509.Name(attributes)
    end = datetime.now(UTC) + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=30))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    if dns:
        names = x509.SubjectAlternativeName([x509.DNSName(one) for one in dns])
        builder = builder.add_extension(names, critical=False)
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(issuer, hashes.SHA256())
    above = () if by is None else (by.certificate, *by.above)
    return Issued(certificate, key, above)
