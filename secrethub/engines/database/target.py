"""What a kind of database has to be able to do. Everything that is not in here is the same for all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from secrethub.engines.target_health import Busy
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive


class WrongPassword(InvalidRequest):
    """The target does not let a user in with this password."""


class HeldUp(Busy):
    """The target answers, but others there hold what is needed, or it is too much. Nothing was done."""


Owned = Literal["reassign", "drop"]
"""What becomes of what a user owns when the user goes: it is for a role without rights, or goes too."""


class Statements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a role says to do at the target, in its language; empty for what is usual there.

    Attributes:
        creation: makes the user.
        revocation: ends the user.
        rollback: takes back a creation that came to no lease.
        renew: lets the user live longer.
        owned: of a revocation as usual.
        owner: who gets what a user owned that is ended as usual; not kept, but said whenever one is ended.
    """

    creation: tuple[str, ...] = ()
    revocation: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()
    renew: tuple[str, ...] = ()
    owned: Owned = "reassign"
    owner: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """A configured target.

    Attributes:
        node: settings of this node: where it may connect to.
        name: of the configuration.
        options: of the kind, those that may be shown.
        secrets: those that may not: ``password``, and ``next_password`` while it is being replaced.
        connections: at most.
        lifetime: seconds that a connection is kept at most; 0 for no bound.
    """

    node: NodeSettings
    name: str
    options: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    connections: int = 4
    lifetime: int = 0

    @property
    def passwords(self) -> tuple[str, ...]:
        """Ours at the target, the likelier first: while it is being replaced either may be good."""
        return tuple(self.secrets[name] for name in ("password", "next_password") if name in self.secrets)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewUser:
    """A user that is about to be made.

    Attributes:
        name: there is none of this name.
        password: nobody has seen it yet.
        until: when the target shall refuse it by itself, if it can.
    """

    name: str
    password: Sensitive[str]
    until: datetime


class Target(Protocol):
    """A configured target, with at most so many connections to it.

    Every call raises Unavailable when the target does not answer and nothing was done, TimeoutError when it
    did not answer and what was asked for may still be done, and InvalidRequest when it refuses. No message
    has a secret.
    """

    async def check(self) -> None:
        """Find out whether it answers, and takes our name and password."""
        ...

    async def create(self, user: NewUser, statements: Statements) -> None:
        """Make a user."""
        ...

    async def extend(self, name: str, until: datetime, statements: Statements) -> None:
        """Let a user live longer. Raises InvalidRequest when it is gone."""
        ...

    async def drop(self, names: Sequence[str], statements: Statements) -> Mapping[str, str]:
        """End users and their connections, and return why some could not be; who is gone is ended."""
        ...

    async def take_back(self, names: Sequence[str], statements: Statements) -> Mapping[str, str]:
        """End what creations may have left half done, as :meth:`drop` does."""
        ...

    async def set_password(self, name: str, password: str, statements: Sequence[str]) -> None:
        """Give a user that is there another password.

        Args:
            name: of the user.
            password: the new one.
            statements: of the operator; none for what is usual.
        """
        ...

    async def bar(self, name: str) -> None:
        """Take a user's password away, so that nobody can log in as he. Connections stay; gone is barred."""
        ...

    async def opens(self, name: str, password: str) -> bool:
        """Tell whether a user is let in with a password."""
        ...

    async def users(self, part: str) -> Sequence[str]:
        """Return the names of users that contain a text."""
        ...

    def close(self) -> None:
        """Let go of every connection; one in use goes once it is free."""
        ...


class Plugin(Protocol):
    """A kind of database."""

    @property
    def names(self) -> Sequence[str]:
        """What it may be called in a configuration, the usual name first."""
        ...

    @property
    def longest_name(self) -> int:
        """Characters that a user's name may have."""
        ...

    def parse(
        self, given: Mapping[str, str], kept: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the options of a configuration that may be shown, and those that may not.

        Args:
            given: as they came, or as they were kept, over one another.
            kept: the secrets that were given before.

        Raises:
            InvalidRequest: what is wrong with them.
        """
        ...

    def check_statements(self, statements: Statements) -> None:
        """Check what a role says.

        Raises:
            InvalidRequest: what is wrong with it.
        """
        ...

    def check_rotation(self, statements: Sequence[str]) -> None:
        """Check statements that give a user another password.

        Raises:
            InvalidRequest: what is wrong with them.
        """
        ...

    def open(self, setup: Setup) -> Target:
        """Return a target; nothing is connected to yet."""
        ...
