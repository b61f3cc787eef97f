"""Warnings of policies that are named and not there: a name may be misspelt, or its policy still to come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from secrethub.engines.runtime import Core
from secrethub.engines.token.settings import WriteTokenSettings
from secrethub.errors import IntegrityFailure, InvalidRequest, Sealed, Unavailable
from secrethub.policy.builtin import ROOT


async def unknown_policies(core: Core, names: Iterable[str]) -> tuple[str, ...]:
    """Return a warning of each name that no policy has, as far as that can be told now."""
    unknown = []
    # What was written before this stays written: it is no failure that nobody can be warned.
    with contextlib.suppress(Unavailable, Sealed):
        for name in names:
            # One that is not authentic or not understood is there; whoever uses it is refused and told of.
            with contextlib.suppress(IntegrityFailure, InvalidRequest):
                if name != ROOT and await core.policies.read(name) is None:
                    unknown.append(f'policy "{name}" does not exist')
    return tuple(unknown)


async def unknown_when_written(core: Core, body: WriteTokenSettings, names: Iterable[str]) -> tuple[str, ...]:
    """Return these warnings if a write names policies.

    Args:
        core: this process.
        body: what was written.
        names: what became of it.
    """
    named = body.token_policies is not None or body.policies is not None
    return await unknown_policies(core, names) if named else ()
