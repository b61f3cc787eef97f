"""Client certificates on 4443: who is asked for one, and what the application is told of it.

A certificate is asked for, and never demanded, as long as a role of an auth method ``cert`` exists. OpenSSL
checks it against everybody whom some role trusts; which role lets it in is decided by the login
(``secrethub/engines/cert``). The authorities follow the roles: a context that is in use cannot lose one, so
each change makes a new context, which is put in place of the listener's own when a handshake begins.
"""

from __future__ import annotations

import ssl
from typing import Any

from secrethub.pki.tls import ask_clients, server_context

_DER = 2  # _ssl.ENCODING_DER
PEER = "secrethub.peer"
"""Key of the ASGI scope: the client's certificate and those above it, in DER."""


def peer_chain(connection: Any) -> tuple[bytes, ...]:
    """Return the verified chain of a connection's client in DER, its own certificate first; empty without.

    Args:
        connection: the ``ssl_object`` of a transport, None without TLS.
    """
    if connection is None:
        return ()
    leaf = connection.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    # Public from Python 3.13 on.
    inner = connection if hasattr(connection, "get_verified_chain") else connection._sslobj  # noqa: SLF001
    chain = [_der(one) for one in inner.get_verified_chain() or ()]
    return (leaf, *(one for one in chain if one != leaf))


def _der(certificate: Any) -> bytes:
    return certificate if isinstance(certificate, bytes) else bytes(certificate.public_bytes(_DER))


class SwappingContext:
    """The context that the listener has, and the one that new handshakes use instead of it."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        """Begin with an identity, and without asking clients.

        Args:
            chain: PEM, the listener's certificate first.
            key: PEM.
        """
        self._chain, self._key, self._clients = chain, key, ""
        self.context = server_context(chain, key)
        self._current = self.context
        self.context.sni_callback = self._swap

    def __repr__(self) -> str:
        return f"SwappingContext(asks={bool(self._clients)})"

    def identify(self, chain: bytes, key: bytes) -> None:
        """Show another certificate from now on."""
        self._replace(chain, key, self._clients)

    def trust(self, clients: str) -> None:
        """Take certificates of other authorities (PEM) from now on; of none when it is empty."""
        if clients != self._clients:
            self._replace(self._chain, self._key, clients)

    def _replace(self, chain: bytes, key: bytes, clients: str) -> None:
        self._current = server_context(chain, key, clients)
        self._chain, self._key, self._clients = chain, key, clients
        # What a connection asks for, it has from the context that it begins with.
        ask_clients(self.context, ask=bool(clients))

    def _swap(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current
