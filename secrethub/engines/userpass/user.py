"""A user: the form of the row, the rule for names."""

from __future__ import annotations

import msgspec

from secrethub.auth.passwords import LONGEST, Password
from secrethub.engines.auth_methods import row_name
from secrethub.engines.engine import Context
from secrethub.engines.token.settings import TokenSettings, WriteTokenSettings
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_identity_value
from secrethub.storage.authority import USERS, Row

_LONGEST_NAME = 128


class User(TokenSettings, frozen=True, kw_only=True):
    """A user.

    Attributes:
        name: in lower case.
        uuid: of this user; one made anew under the name is another.
        password: what is kept of it.
    """

    name: str
    uuid: str
    password: Password


class WriteUser(WriteTokenSettings, frozen=True):
    """A user as it is written. What is absent keeps what it was; a new one needs a password.

    Names without ``token_`` are older ones.
    """

    password: str = ""
    password_hash: str | None = None
    ttl: str | int | None = None
    max_ttl: str | int | None = None
    bound_cidrs: list[str] | None = None


def user_key(mount: str, name: str) -> str:
    """Return the key of a user's row, of the mount with this UUID.

    Raises:
        InvalidRequest: not a name; policies see the path as it is, so it is written as it is kept.
    """
    if not is_user_name(name):
        raise InvalidRequest(
            f"a user name has 1 to {_LONGEST_NAME} characters of a-z, 0-9, '_', '.' and '-', in lower case"
        )
    return row_name(mount, name)


def is_user_name(name: str) -> bool:
    """Tell whether somebody can have this name."""
    return is_identity_value(name) and len(name) <= _LONGEST_NAME and name == name.lower()


def user_of(row: Row) -> User:
    """Return the user of a row."""
    return msgspec.convert(dict(row.body), User)


async def load_user(context: Context) -> User:
    """Return the user that the path names.

    Raises:
        NotFound: there is none.
        IntegrityFailure: the row is not authentic.
    """
    row = await context.core.authority.get(USERS, user_key(context.mount_id, context.params["user"]))
    if row is None:
        raise NotFound("no such user")
    return user_of(row)


async def user_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    key = user_key(context.mount_id, context.params["user"])
    return await context.core.authority.get(USERS, key) is not None


def checked_password(password: str) -> str:
    """Return a password that can be kept.

    Raises:
        InvalidRequest: there is none, or it is too long.
    """
    if not password:
        raise InvalidRequest("missing password")
    if len(password) > LONGEST:
        raise InvalidRequest(f"a password has at most {LONGEST} characters")
    return password
