"""Certificates for servers and clients: issue, and read what was issued.

The mount ``pki/`` signs with the authority ``pki``. No request reaches another authority: the
transport authority of agents and gateways is out of reach of every PKI mount, and a mount at any
other path has no authority at all. Certificates are no secrets: reading one needs no token, as in Vault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secrethub.engines import answers
from secrethub.engines.engine import Answer, Context, Document, Operation
from secrethub.engines.pki import issuance
from secrethub.engines.pki.authorities import load_chain, load_issuer
from secrethub.engines.pki.issuance import IssuedAnswer
from secrethub.engines.pki.roles import DEFAULT, Role, load_role
from secrethub.errors import InvalidRequest, NotFound
from secrethub.pki import keys
from secrethub.pki.chain import parse_serial, serial_text, to_pem, validity
from secrethub.pki.issuing import Names, issue
from secrethub.pki.names import IPAddress
from secrethub.storage import certificates
from secrethub.wire.durations import format_rfc3339

AUTHORITIES = {"pki/": "pki"}
"""The authority of each mount."""

TRANSPORT_MOUNT = "transport/"
"""Where the inventory keeps the gateways' certificates; nothing can be mounted in its place."""

_PAGE = 1000
_DER = "application/pkix-cert"
_PEM = "application/pem-certificate-chain"


class CertificateAnswer(msgspec.Struct, frozen=True):
    """A certificate in PEM, and when it was revoked: 0 and nothing for never."""

    certificate: str
    revocation_time: int
    revocation_time_rfc3339: str
    ca_chain: str = ""


class PkiEngine:
    """Engine kind ``pki``."""

    kind = "pki"

    def native_prefix(self, mount: str) -> str:
        """Return the prefix of native rules: paths are written as they are."""
        return mount

    def operations(self) -> tuple[Operation, ...]:
        """Return what a PKI mount offers."""
        return (
            *(
                Operation(
                    name="pki.issue",
                    method="write",
                    pattern=pattern,
                    handler=self.issue,
                    response=IssuedAnswer,
                    capability="update",
                    request=issuance.IssueRequest,
                    changes=True,
                    plain=frozenset(issuance.IssueRequest.__struct_fields__),
                    summary="Issue a certificate with a new key.",
                )
                for pattern in ("issue", "issue/{role}")
            ),
            *(
                Operation(
                    name="pki.ca",
                    method="read",
                    pattern=pattern,
                    handler=handler,
                    response=None if media else CertificateAnswer,
                    capability="read",
                    public=True,
                    media=media,
                    summary=f"Read the issuing authority's certificate ({form}).",
                )
                for pattern, handler, form, media in (
                    ("ca", self.authority_der, "DER", (_DER,)),
                    ("ca/pem", self.authority_pem, "PEM", (_PEM,)),
                    ("cert/ca", self.authority, "JSON", ()),
                )
            ),
            *(
                Operation(
                    name="pki.ca-chain",
                    method="read",
                    pattern=pattern,
                    handler=handler,
                    response=None if media else CertificateAnswer,
                    capability="read",
                    public=True,
                    media=media,
                    summary=f"Read the authorities' certificates, the root last ({form}).",
                )
                for pattern, handler, form, media in (
                    ("ca_chain", self.authority_chain_pem, "PEM", (_PEM,)),
                    ("cert/ca_chain", self.authority_chain, "JSON", ()),
                )
            ),
            Operation(
                name="pki.certificate",
                method="read",
                pattern="cert/{serial}",
                handler=self.certificate,
                response=CertificateAnswer,
                capability="read",
                public=True,
                summary="Read an issued certificate.",
            ),
            Operation(
                name="pki.certificates",
                method="list",
                pattern="certs",
                handler=self.certificates,
                response=answers.Names,
                capability="list",
                query=("after",),
                summary="List serial numbers of issued certificates.",
            ),
        )

    async def issue(self, context: Context, body: issuance.IssueRequest) -> Answer:
        """Make a key, certify it and give both out; the key is not kept."""
        role_name = context.params.get("role", DEFAULT)
        if body.role not in {None, role_name}:
            # Policies decide by path, so a role in the body must not reach further than the path.
            raise InvalidRequest(f"to use another role, write to {context.mount}issue/<role>")
        role = await load_role(context.core, context.mount, role_name)
        issuance.check_supported(body)
        lifetime, warnings = issuance.lifetime(role, body, context.now)
        names = issuance.names(body)
        issuer = await load_issuer(context.core, _authority(context))
        key = await _generate(role.key_type)
        made = issue(issuer, role.certificate_profile, key.public_key(), names, context.now, lifetime)
        row = _row(context, role, names, made)
        async with context.core.authority.issue(context.fence) as change:
            taken = await certificates.names_in_use(
                change.connection, TRANSPORT_MOUNT, _remote(names), context.now
            )
            if taken:
                raise InvalidRequest(f"{', '.join(taken)}: certificates of SecretHub's own listeners only")
            await certificates.record(change.connection, row)
        detail = {"serial_number": row.serial, "role": role_name, "not_after": row.not_after.isoformat()}
        return Answer(data=issuance.answered(body, made, issuer, key), warnings=warnings, detail=detail)

    async def authority_der(self, context: Context, _body: object) -> Answer:
        """Read the issuing authority's certificate as it is."""
        chain = await load_chain(context.core, _authority(context))
        der = chain[0].public_bytes(Encoding.DER)
        return Answer(document=Document(media_type=_DER, content=der))

    async def authority_pem(self, context: Context, _body: object) -> Answer:
        """Read the issuing authority's certificate as PEM text."""
        return _pem_document((await load_chain(context.core, _authority(context)))[:1])

    async def authority(self, context: Context, _body: object) -> Answer:
        """Read the issuing authority's certificate."""
        chain = await load_chain(context.core, _authority(context))
        return _shown(to_pem(chain[0]))

    async def authority_chain_pem(self, context: Context, _body: object) -> Answer:
        """Read the issuing authority's certificate and those above it as PEM text."""
        return _pem_document(await load_chain(context.core, _authority(context)))

    async def authority_chain(self, context: Context, _body: object) -> Answer:
        """Read the issuing authority's certificate and those above it."""
        pem = to_pem(*await load_chain(context.core, _authority(context)))
        return _shown(pem, ca_chain=pem.strip())

    async def certificate(self, context: Context, _body: object) -> Answer:
        """Read a certificate that this mount issued."""
        serial = parse_serial(context.params["serial"])
        async with context.core.database.read() as connection:
            row = await certificates.find(connection, context.mount, serial)
        if row is None:
            raise NotFound(f"no certificate {serial}")
        return _shown(row.pem, row.revoked_at)

    async def certificates(self, context: Context, _body: object) -> Answer:
        """List serial numbers, a page of 1,000 at a time; ``after`` goes on."""
        after = context.query.get("after", "")
        after = parse_serial(after) if after else after
        async with context.core.database.read() as connection:
            found = await certificates.serials(connection, context.mount, after, _PAGE)
        if not found:
            raise NotFound
        warnings = (f"there may be more: list again with after={found[-1]}",) if len(found) == _PAGE else ()
        return Answer(data={"keys": found}, warnings=warnings)


def _pem_document(chain: Sequence[x509.Certificate]) -> Answer:
    content = to_pem(*chain).strip().encode("ascii")
    return Answer(document=Document(media_type=_PEM, content=content))


def _shown(pem: str, revoked_at: datetime | None = None, **more: str) -> Answer:
    """Return a certificate as JSON, as Vault does: without the last line end."""
    return Answer(
        data={
            "certificate": pem.strip(),
            "revocation_time": 0 if revoked_at is None else int(revoked_at.timestamp()),
            "revocation_time_rfc3339": "" if revoked_at is None else format_rfc3339(revoked_at),
            **more,
        }
    )


def _authority(context: Context) -> str:
    name = AUTHORITIES.get(context.mount)
    if name is None:
        raise InvalidRequest("no authority is configured at this mount")
    return name


def _remote(names: Names) -> list[str]:
    """Names by which another host could be reached; everybody may have a name of the loopback."""

    def local(address: IPAddress) -> bool:
        return address.is_loopback

    return [name for name in names.dns if name != "localhost" and not name.endswith(".localhost")] + [
        str(address) for address in names.addresses if not local(address)
    ]


async def _generate(key_type: keys.KeyType) -> keys.PrivateKey:
    if key_type.startswith("rsa"):
        return await asyncio.to_thread(keys.generate, key_type)
    return keys.generate(key_type)


def _row(context: Context, role: Role, names: Names, made: x509.Certificate) -> certificates.CertificateRow:
    return certificates.CertificateRow(
        serial=serial_text(made.serial_number),
        mount=context.mount,
        kind=role.profile,
        subject=",".join((*names.dns, *map(str, names.addresses))),
        issued_at=context.now,
        not_after=validity(made).not_after,
        pem=to_pem(made),
    )
