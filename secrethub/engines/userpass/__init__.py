"""userpass: people log in with a name and a password (Vault's auth method of that name)."""

from __future__ import annotations

from secrethub.engines.answers import TokenGiven
from secrethub.engines.engine import Operation
from secrethub.engines.userpass.login import PasswordLogin, login
from secrethub.engines.userpass.users import user_operations


class UserpassEngine:
    """Auth method ``userpass``."""

    kind = "userpass"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a userpass mount offers."""
        return (
            Operation(
                name="userpass.login",
                method="write",
                pattern="login/{user}",
                handler=login,
                response=TokenGiven,
                capability="update",
                request=PasswordLogin,
                changes=True,
                public=True,
                claims=lambda params, _body, _peer: params["user"].lower(),
                summary="Log in with name and password.",
            ),
            *user_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount
