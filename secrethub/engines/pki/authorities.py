"""The cluster's certificate authorities as authority rows. Their private keys never leave Core.

A row's key is the kind of the authority: ``root``, ``transport`` or ``pki``. The private key is
sealed by the keyring and bound to the row and to the number of the key, and it is opened for the
one signature that needs it.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from cryptography import x509

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.runtime import Core
from secrethub.errors import NotFound
from secrethub.pki.chain import from_pem, to_pem, validity
from secrethub.pki.issuing import Issuer
from secrethub.pki.keys import describe, load_private_der, private_der
from secrethub.pki.profiles import Profile
from secrethub.storage.authority import CERTIFICATE_AUTHORITIES, Change, Row

_FIRST_KEY = 1


def _place(name: str, number: int) -> Place:
    return Place(table=CERTIFICATE_AUTHORITIES.name, column="key", row=name, version=number)


async def put_authority(change: Change, keyring: Keyring, issuer: Issuer) -> Row:
    """Store a new authority.

    Raises:
        Conflict: there is one of this kind.
    """
    name = issuer.name.kind
    sealed = keyring.seal(private_der(issuer.key), _place(name, _FIRST_KEY))
    body = {
        "kind": name,
        "chain": to_pem(*issuer.chain),
        "not_after": validity(issuer.certificate).not_after.astimezone(UTC).isoformat(),
        "key_type": describe(issuer.key.public_key()),
        "key_number": _FIRST_KEY,
        "key": base64.b64encode(sealed).decode("ascii"),
    }
    return await change.put(CERTIFICATE_AUTHORITIES, name, body, expected_revision=0)


async def load_chain(core: Core, name: str) -> tuple[x509.Certificate, ...]:
    """Return an authority's certificate and those above it, the root last.

    Raises:
        NotFound: there is no such authority.
        IntegrityFailure: its row is not authentic.
    """
    return from_pem((await _row(core, name)).body["chain"])


async def load_issuer(core: Core, name: str) -> Issuer:
    """Return an authority that can sign.

    Raises:
        NotFound: there is no such authority.
        IntegrityFailure: its row is not authentic.
        DecryptionFailed: its key was not sealed here.
    """
    row = await _row(core, name)
    own, *above = from_pem(row.body["chain"])
    sealed = base64.b64decode(row.body["key"])
    key = load_private_der(core.keyring().open(sealed, _place(name, row.body["key_number"])))
    return Issuer(certificate=own, above=tuple(above), key=key)


def lifetime_below(issuer: Issuer, profile: Profile, now: datetime) -> timedelta:
    """Return the profile's lifetime, cut at the end of the issuer."""
    return min(profile.lifetime, validity(issuer.certificate).not_after - now)


async def _row(core: Core, name: str) -> Row:
    row = await core.authority.get(CERTIFICATE_AUTHORITIES, name)
    if row is None:
        raise NotFound(f"there is no {name} authority")
    return row
