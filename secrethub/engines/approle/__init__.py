"""AppRole: machines log in with a RoleID and a SecretID (Vault's auth method of that name).

A role's tokens carry ``role_name`` in their metadata.
"""

from __future__ import annotations

import msgspec

from secrethub.engines.answers import Names, Nothing, TokenGiven
from secrethub.engines.approle import secret_ids
from secrethub.engines.approle.fields import field_operations
from secrethub.engines.approle.login import Login, claimed_role, login
from secrethub.engines.approle.roles import role_operations
from secrethub.engines.approle.tidying import tidy
from secrethub.engines.engine import Handler, Method, Operation
from secrethub.engines.listing import PAGES

_PLAIN = frozenset({"ttl", "num_uses", "cidr_list", "token_bound_cidrs", "secret_id_accessor"})


class AppRoleEngine:
    """Auth method ``approle``."""

    kind = "approle"

    def operations(self) -> tuple[Operation, ...]:
        """Return what an AppRole mount offers."""
        return (
            Operation(
                name="approle.login",
                method="write",
                pattern="login",
                handler=login,
                response=TokenGiven,
                capability="update",
                request=Login,
                changes=True,
                public=True,
                claims=claimed_role,
                summary="Log in with RoleID and SecretID.",
            ),
            Operation(
                name="approle.tidy",
                method="write",
                pattern="tidy/secret-id",
                handler=tidy,
                response=Nothing,
                capability="update",
                changes=True,
                statuses=(202,),
                summary="Remove SecretIDs that have expired.",
            ),
            *role_operations(),
            *field_operations(),
            *_secret_id_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount


def _secret_id_operations() -> tuple[Operation, ...]:
    named, accessed = secret_ids.NamedSecretId, secret_ids.NamedAccessor
    return (
        Operation(
            name="approle.secret-id.list",
            method="list",
            pattern="role/{role}/secret-id",
            handler=secret_ids.list_secret_ids,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List accessors of SecretIDs.",
        ),
        *(
            _changing(name, path, handler, request, response=secret_ids.SecretIdAnswer)
            for name, path, handler, request in (
                ("make", "secret-id", secret_ids.make_secret_id, secret_ids.MakeSecretId),
                ("choose", "custom-secret-id", secret_ids.choose_secret_id, secret_ids.ChooseSecretId),
            )
        ),
        _reading("look-up", "secret-id/lookup", secret_ids.look_up, named),
        _changing("destroy", "secret-id/destroy", secret_ids.destroy, named),
        _changing("destroy", "secret-id/destroy", secret_ids.destroy, named, method="delete"),
        _reading("look-up-accessor", "secret-id-accessor/lookup", secret_ids.look_up_accessor, accessed),
        _changing("destroy-accessor", "secret-id-accessor/destroy", secret_ids.destroy_accessor, accessed),
        _changing(
            "destroy-accessor",
            "secret-id-accessor/destroy",
            secret_ids.destroy_accessor,
            accessed,
            method="delete",
        ),
    )


def _changing(
    name: str,
    path: str,
    handler: Handler,
    request: type[msgspec.Struct],
    *,
    response: type[msgspec.Struct] = Nothing,
    method: Method = "write",
) -> Operation:
    return Operation(
        name=f"approle.secret-id.{name}",
        method=method,
        pattern=f"role/{{role}}/{path}",
        handler=handler,
        capability="delete" if method == "delete" else "update",
        request=request,
        response=response,
        changes=True,
        plain=_PLAIN,
        summary=_SUMMARIES[name],
    )


def _reading(name: str, path: str, handler: Handler, request: type[msgspec.Struct]) -> Operation:
    return Operation(
        name=f"approle.secret-id.{name}",
        method="write",
        pattern=f"role/{{role}}/{path}",
        handler=handler,
        capability="update",
        request=request,
        response=secret_ids.ShownSecretId,
        plain=_PLAIN,
        summary=_SUMMARIES[name],
    )


_SUMMARIES = {
    "make": "Make a SecretID.",
    "choose": "Take a SecretID of one's own choice.",
    "look-up": "Tell about a SecretID.",
    "destroy": "Destroy a SecretID.",
    "look-up-accessor": "Tell about the SecretID that has an accessor.",
    "destroy-accessor": "Destroy the SecretID that has an accessor.",
}
