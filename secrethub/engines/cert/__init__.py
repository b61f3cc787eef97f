"""cert: clients log in with a TLS certificate (Vault's auth method of that name).

Only the TLS listener that Core opens itself sees a client's certificate; behind Ray Serve's ingress, on the
plain listener and behind a proxy that ends TLS nobody logs in by it.
"""

from __future__ import annotations

from hashlib import sha256

from secrethub.engines.answers import TokenGiven
from secrethub.engines.cert.certs import cert_operations
from secrethub.engines.cert.login import CertLogin, check_renewal, login
from secrethub.engines.engine import Context, Operation
from secrethub.engines.mounts import Mount
from secrethub.engines.origin import Origin


class CertEngine:
    """Auth method ``cert``."""

    kind = "cert"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a cert mount offers."""
        return (
            Operation(
                name="cert.login",
                method="write",
                pattern="login",
                handler=login,
                response=TokenGiven,
                capability="update",
                request=CertLogin,
                changes=True,
                public=True,
                claims=lambda _params, _body, peer: sha256(peer[0]).hexdigest() if peer else None,
                plain=frozenset({"name"}),
                summary="Log in with a client certificate.",
            ),
            *cert_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount

    async def check_renewal(self, context: Context, origin: Origin, mount: Mount) -> None:
        """Check that a token's owner would be let in again. Raises InvalidRequest."""
        await check_renewal(context, origin, mount)
