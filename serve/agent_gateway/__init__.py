"""The gateway of the agents: port 4665, mutual TLS, one session an agent."""

from __future__ import annotations

from serve.agent_gateway.gateway import AgentGateway

__all__ = ["AgentGateway"]
