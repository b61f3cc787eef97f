"""What the endpoints below ``agents/`` answer."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.agents.records import Approval


class NonceAnswer(msgspec.Struct, frozen=True):
    """What the signing request has to carry."""

    nonce: str
    expires: str


class EnrolledAnswer(msgspec.Struct, frozen=True):
    """An agent's identity: certificates in PEM, and where and whom to connect to."""

    agent_id: str
    certificate: str
    ca_chain: list[str]
    not_after: str
    agent_urls: list[str]
    gateway_uri: str
    root_sha256: str


class AgentAnswer(msgspec.Struct, frozen=True):
    """An agent, with what it said last of its files."""

    agent_id: str
    name: str
    role: str
    status: str
    certificate_serial: str
    certificate_not_after: str
    key_type: str
    version: str
    labels: dict[str, str]
    enrolled_at: str
    renewed_at: str | None
    revoked_at: str | None
    approval: Approval | None
    report: dict[str, Any] | None


class ApprovedAnswer(msgspec.Struct, frozen=True):
    """Until when a name may be enrolled with another key, by which role."""

    agent_id: str
    name: str
    role: str
    approved_until: str
