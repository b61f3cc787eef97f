"""What the endpoints of a database mount answer."""

from __future__ import annotations

from typing import Any

import msgspec


class ConnectionAnswer(msgspec.Struct, frozen=True):
    """A connection, without what is secret of it."""

    plugin_name: str
    plugin_version: str
    connection_details: dict[str, Any]
    allowed_roles: list[str]
    verify_connection: bool
    root_credentials_rotate_statements: list[str]
    password_policy: str


class RoleAnswer(msgspec.Struct, frozen=True):
    """A role; times in seconds."""

    db_name: str
    creation_statements: list[str]
    revocation_statements: list[str]
    renew_statements: list[str]
    rollback_statements: list[str]
    owned_objects: str
    default_ttl: int
    max_ttl: int
    credential_type: str


class StaticRoleAnswer(msgspec.Struct, frozen=True):
    """A user whose password is ours, and how it is rotated: by period in seconds, or by schedule."""

    db_name: str
    username: str
    rotation_statements: list[str]
    last_vault_rotation: str
    credential_type: str
    rotation_period: int = 0
    rotation_schedule: str = ""
    rotation_zone: str = ""


class StaticCredsAnswer(msgspec.Struct, frozen=True):
    """The present password of a static role; ``ttl`` seconds until it is rotated."""

    username: str
    password: str
    last_vault_rotation: str
    ttl: int
    rotation_period: int = 0
    rotation_schedule: str = ""
    rotation_zone: str = ""
