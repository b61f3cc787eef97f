"""The built-in authorities: made at init, used in-process for the listeners of every node.

The root signs two intermediates. ``transport`` signs agents and gateways only; the listener on 4665
trusts it and nothing else. ``pki`` signs what ``pki/issue`` gives out. Private keys stay sealed in
authority rows and never leave Core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from secrethub.crypto.keyring import Keyring
from secrethub.engines.pki.authorities import lifetime_below, load_chain, load_issuer, put_authority
from secrethub.engines.pki.engine import TRANSPORT_MOUNT
from secrethub.engines.pki.roles import DEFAULT, Role, put_role
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, Misconfigured, PermissionDenied
from secrethub.operations.note import note
from secrethub.pki import keys
from secrethub.pki.chain import (
    agent_name,
    authority_name,
    fingerprint,
    from_der,
    serial_text,
    to_pem,
    validity,
)
from secrethub.pki.issuing import Names, issue, make_authority, make_root
from secrethub.pki.names import dns_name, gateway_uri, ip_address
from secrethub.pki.profiles import GATEWAY, INTERMEDIATE, TRANSPORT
from secrethub.storage import certificates
from secrethub.storage.authority import Change

RootKeyType = Literal["ecdsa-p384", "rsa-4096"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """What clients and listeners trust.

    Attributes:
        cluster: the cluster that the root says it belongs to.
        root_pem: the built-in root.
        root_sha256: SHA-256 of its DER form, 64 hexadecimal digits: the pin given to agents.
        transport_pem: the transport intermediate alone, the anchor of the listener on 4665.
    """

    cluster: str
    root_pem: bytes
    root_sha256: str
    transport_pem: bytes


async def create_authorities(
    change: Change,
    keyring: Keyring,
    cluster_id: str,
    now: datetime,
    key_type: RootKeyType = "ecdsa-p384",
) -> None:
    """Make root, transport and PKI authorities and the default PKI role, in init's transaction.

    The transport authority is always ECDSA P-256: only agents and gateways meet it, and it is
    verified in every handshake of theirs. The key type is the root's and the PKI authority's.

    Raises:
        Conflict: the authorities exist already.
    """
    root = make_root(await _generate(change, key_type), cluster_id, now)
    transport = make_authority(root, TRANSPORT, keys.generate("ecdsa-p256"), now)
    pki = make_authority(root, INTERMEDIATE, await _generate(change, key_type), now)
    for authority in (root, transport, pki):
        await put_authority(change, keyring, authority)
    await put_role(change, "pki/", DEFAULT, Role())


async def issue_gateway_certificate(
    core: Core, node: str, names: Sequence[str], addresses: Sequence[str]
) -> tuple[bytes, bytes]:
    """Issue the certificate of a node's listeners on 4443 and 4665, for use in this process.

    It lives 30 days; :func:`secrethub.pki.validity.renewal_due` says when to ask for the next.

    Args:
        core: unsealed.
        node: the node's name, for the URI that agents require.
        names: DNS names that clients reach the node by.
        addresses: IP addresses likewise.

    Returns:
        The PEM chain, the root last so that clients can pin it, and the PEM private key.

    Raises:
        Misconfigured: a name or address of the settings cannot stand in a certificate.
        Sealed: there are no keys.
        Unavailable: the database does not answer.
    """
    now = core.clock.now()
    issuer = await load_issuer(core, TRANSPORT.name)
    key = keys.generate("ecdsa-p256")
    try:
        wanted = Names(
            common_name=node,
            dns=tuple(dns_name(name) for name in names),
            addresses=tuple(ip_address(address) for address in addresses),
            uris=(gateway_uri(issuer.name.cluster, node),),
        )
        lifetime = lifetime_below(issuer, GATEWAY, now)
        made = issue(issuer, GATEWAY, key.public_key(), wanted, now, lifetime)
    except InvalidRequest as exc:
        raise Misconfigured(f"certificate of the listeners: {exc}") from exc
    row = certificates.CertificateRow(
        serial=serial_text(made.serial_number),
        mount=TRANSPORT_MOUNT,
        kind=GATEWAY.name,
        subject=",".join((*wanted.dns, *map(str, wanted.addresses))),
        issued_at=now,
        not_after=validity(made).not_after,
        pem=to_pem(made),
    )
    await note(
        core,
        operation="transport.issue",
        path=f"{TRANSPORT_MOUNT}gateway/{node}",
        actor=f"node:{node}",
        outcome="done",
        detail={"serial_number": row.serial, "names": row.subject, "not_after": row.not_after.isoformat()},
    )
    async with core.database.write() as connection:
        await certificates.forget_expired(connection, TRANSPORT_MOUNT, now)
        await certificates.record(connection, row)
    return to_pem(made, *issuer.chain).encode("ascii"), keys.private_pem(key)


async def load_trust(core: Core) -> Trust:
    """Return the root to pin and the anchor for the agents' listener.

    Raises:
        NotFound: the cluster has no authorities.
        IntegrityFailure: their row is not authentic.
        Sealed: there are no keys.
    """
    transport, root = await load_chain(core, TRANSPORT.name)
    return Trust(
        cluster=authority_name(root).cluster,
        root_pem=to_pem(root).encode("ascii"),
        root_sha256=fingerprint(root),
        transport_pem=to_pem(transport).encode("ascii"),
    )


def check_agent_certificate(der: bytes, cluster: str | None = None) -> tuple[str, str]:
    """Return the agent's id and the serial number of a certificate that TLS has verified.

    Whether the agent and this certificate are still good is decided by its row, at each request.

    Args:
        der: the peer's certificate, verified against the transport authority.
        cluster: the cluster it must name; None to rely on the authority alone.

    Raises:
        PermissionDenied: it is not an agent's, or another cluster's.
    """
    try:
        certificate = from_der(der)
        name = agent_name(certificate)
    except InvalidRequest as exc:
        raise PermissionDenied(f"not an agent's certificate: {exc}") from exc
    if cluster is not None and name.cluster != cluster:
        raise PermissionDenied("the certificate names another cluster")
    return name.agent_id, serial_text(certificate.serial_number)


async def _generate(change: Change, key_type: RootKeyType) -> keys.PrivateKey:
    if key_type == "ecdsa-p384":
        return keys.generate(key_type)
    making = asyncio.create_task(asyncio.to_thread(keys.generate, key_type), name="generate-rsa")
    while not (await asyncio.wait({making}, timeout=1))[0]:
        # PostgreSQL ends a transaction of ours that stays idle for five seconds.
        await change.connection.execute("SELECT 1")
    return making.result()
