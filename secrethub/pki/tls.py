"""TLS contexts of Core's own listeners, built from certificates in memory.

``ssl`` reads private keys from files only. A key must never be on a disk, so it passes through an
anonymous file in memory (``memfd_create``) that nobody else can open and that ends with the call.
"""

from __future__ import annotations

import os
import ssl

SUBPROTOCOL_ALPN = "http/1.1"


def server_context(chain_pem: bytes, key_pem: bytes, client_pem: str = "") -> ssl.SSLContext:
    """Return the context of the HTTPS listener: TLS 1.2 and later.

    Args:
        chain_pem: the listener's certificate and the authorities above it.
        key_pem: its key.
        client_pem: authorities whose clients may show a certificate; none is asked for without.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([SUBPROTOCOL_ALPN])
    # An authority that is not self-signed, or a certificate by itself, is trusted too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if client_pem:
        context.load_verify_locations(cadata=client_pem)
    ask_clients(context, ask=bool(client_pem))
    load_identity(context, chain_pem, key_pem)
    return context


def ask_clients(context: ssl.SSLContext, *, ask: bool) -> None:
    """Ask clients for a certificate, or do not, on connections that are made afterwards.

    One that is shown must lead to an authority that is trusted, or the connection is refused. Sessions
    are not resumed then, for a resumed one would not show the chain again.
    """
    context.verify_mode = ssl.CERT_OPTIONAL if ask else ssl.CERT_NONE
    context.num_tickets = 0 if ask else 2
    if ask:
        context.options |= ssl.OP_NO_TICKET
    else:
        context.options &= ~ssl.OP_NO_TICKET


def agent_listener_context(chain_pem: bytes, key_pem: bytes, transport_pem: bytes) -> ssl.SSLContext:
    """Return the context of the agents' listener: TLS 1.3, a client certificate is required.

    The transport intermediate is the only anchor. OpenSSL takes an anchor that is not self-signed
    only with ``VERIFY_X509_PARTIAL_CHAIN``; the root is deliberately not trusted here, for it also
    signs the authority of the PKI mounts. Session tickets are off: a resumed session would not
    show its certificate's chain again.

    Args:
        chain_pem: the gateway's certificate and the authorities above it.
        key_pem: its key.
        transport_pem: the transport intermediate, alone.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=transport_pem.decode("ascii"))
    context.num_tickets = 0
    context.set_alpn_protocols([SUBPROTOCOL_ALPN])
    load_identity(context, chain_pem, key_pem)
    return context


def load_identity(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Give ``context`` a certificate and key that are only in memory.

    A listening context may be given a new identity at any time; connections made afterwards use it.
    """
    with open(os.memfd_create("secrethub-identity", os.MFD_CLOEXEC), "wb") as file:  # noqa: PTH123
        file.write(key_pem)
        file.write(b"\n")
        file.write(chain_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
