"""Agents: enrolment, inventory, revocation and renewal of their certificates."""

from secrethub.engines.agents.engine import AgentsEngine
from secrethub.engines.agents.renewal import RenewedCertificate, renew_agent_certificate

__all__ = ["AgentsEngine", "RenewedCertificate", "renew_agent_certificate"]
