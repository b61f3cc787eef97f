"""AppRole: machines log in with a RoleID and a SecretID (Vault's auth method of that name).

A role's tokens carry ``role_name`` in their metadata.
"""

from __future__ import annotations

from secrethub.engines.approle.login import Login, login
from secrethub.engines.approle.roles import (
    WriteRole,
    WriteRoleId,
    delete_role,
    list_roles,
    read_role,
    read_role_id,
    role_exists,
    write_role,
    write_role_id,
)
from secrethub.engines.approle.secret_ids import MakeSecretId, list_secret_ids, make_secret_id
from secrethub.engines.engine import Operation


class AppRoleEngine:
    """Auth method ``approle``."""

    kind = "approle"

    def operations(self) -> tuple[Operation, ...]:
        """Return what an AppRole mount offers."""
        role = "role/{role}"
        return (
            Operation(
                name="approle.login",
                method="write",
                pattern="login",
                handler=login,
                capability="update",
                request=Login,
                changes=True,
                public=True,
                summary="Log in with RoleID and SecretID.",
            ),
            Operation(
                name="approle.role.list",
                method="list",
                pattern="role",
                handler=list_roles,
                capability="list",
                summary="List roles.",
            ),
            Operation(
                name="approle.role.read",
                method="read",
                pattern=role,
                handler=read_role,
                capability="read",
                summary="Read a role.",
            ),
            Operation(
                name="approle.role.write",
                method="write",
                pattern=role,
                handler=write_role,
                capability="update",
                request=WriteRole,
                changes=True,
                exists=role_exists,
                plain=frozenset(WriteRole.__struct_fields__),
                summary="Write a role.",
            ),
            Operation(
                name="approle.role.delete",
                method="delete",
                pattern=role,
                handler=delete_role,
                capability="delete",
                changes=True,
                summary="Delete a role and its SecretIDs.",
            ),
            Operation(
                name="approle.role-id.read",
                method="read",
                pattern=role + "/role-id",
                handler=read_role_id,
                capability="read",
                summary="Read a role's RoleID.",
            ),
            Operation(
                name="approle.role-id.write",
                method="write",
                pattern=role + "/role-id",
                handler=write_role_id,
                capability="update",
                request=WriteRoleId,
                changes=True,
                summary="Choose a role's RoleID.",
            ),
            Operation(
                name="approle.secret-id.make",
                method="write",
                pattern=role + "/secret-id",
                handler=make_secret_id,
                capability="update",
                request=MakeSecretId,
                changes=True,
                plain=frozenset({"ttl", "num_uses", "cidr_list"}),
                summary="Make a SecretID.",
            ),
            Operation(
                name="approle.secret-id.list",
                method="list",
                pattern=role + "/secret-id",
                handler=list_secret_ids,
                capability="list",
                summary="List accessors of SecretIDs.",
            ),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount
