"""What the agents' listener shows of itself, and what it trusts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime

from secrethub.engines.runtime import Core
from secrethub.operations.transport_ca import issue_gateway_certificate, load_trust
from secrethub.pki.chain import from_pem, validity
from secrethub.pki.tls import agent_listener_context
from secrethub.pki.validity import renewal_due


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerIdentity:
    """A TLS context with a fresh gateway certificate, trusting the transport authority alone.

    Attributes:
        context: for the listener.
        cluster: whose agents may connect.
        due: when to get the next one.
    """

    context: ssl.SSLContext
    cluster: str
    due: datetime


async def take_identity(core: Core) -> ListenerIdentity:
    """Issue a certificate for this process's listener. Its key stays in this process.

    Raises:
        Sealed: there are no keys.
        SecretHubError: it cannot be issued now.
    """
    settings = core.settings
    trust = await load_trust(core)
    chain, key = await issue_gateway_certificate(
        core, settings.node, settings.tls_names, settings.tls_addresses
    )
    return ListenerIdentity(
        context=agent_listener_context(chain, key, trust.transport_pem),
        cluster=trust.cluster,
        due=renewal_due(validity(from_pem(chain.decode("ascii"))[0])),
    )
