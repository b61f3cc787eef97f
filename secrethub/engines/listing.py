"""What a list may tell: names that a rule denies are left out.

The decision about a list is about the folder. A rule that denies what lies in it, or one name of it,
may be more specific than the one that allowed the list; so each name is asked about too. Names that
no rule speaks of stay, as in Vault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from secrethub.engines.engine import Context
from secrethub.errors import InvalidRequest
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import CompiledPolicies, Denied, Question, decide

PAGES = ("limit", "after")
"""Query of lists that are read in pages: names after ``after``, ``limit`` of them; without them, all."""
_TURN = 200
"""Names that are decided on before other requests have their turn."""


async def shown(context: Context, names: Iterable[str]) -> list[str]:
    """Return of the names below the path that is listed those that the caller may know of and asks for.

    Args:
        context: of a list whose names are paths as every rule spells them.
        names: what is there, in order.

    Raises:
        InvalidRequest: ``limit`` is no number.
    """
    assert context.identity is not None
    folder = context.path + "/"
    limit, after = page(context)
    told = await without_denied(
        (name for name in names if name > after),
        await context.core.policies.compiled(context.identity),
        folder=folder,
        native_folder=folder,
        when=context.when,
    )
    return told[:limit]


def page(context: Context) -> tuple[int | None, str]:
    """Return how many names are asked for, None for all, and the one behind which they begin.

    Raises:
        InvalidRequest: ``limit`` is no number.
    """
    return whole_number(context.query.get("limit"), name="limit"), context.query.get("after", "")


def whole_number(text: str | None, *, name: str = "version") -> int | None:
    """Return a number of the query; None where there is none, or 0.

    Raises:
        InvalidRequest: it is no whole number.
    """
    if text is None or text in {"", "0"}:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidRequest(f"{name} must be a positive whole number")
    return int(text)


async def without_denied(
    names: Iterable[str],
    policies: CompiledPolicies,
    *,
    folder: str,
    native_folder: str,
    when: Circumstances | None = None,
) -> list[str]:
    """Return the names that no rule denies to list.

    Args:
        names: as in the list, folders with a trailing slash.
        policies: of whoever asks.
        folder: what comes before the names in Vault's rules, with a trailing slash.
        native_folder: the same in native rules.
        when: what conditions are about; None when nothing is known.
    """
    if policies.root and policies.narrowing is None:
        return list(names)
    kept = []
    for count, name in enumerate(names, start=1):
        bare = name.rstrip("/")
        # Vault's rules about a folder and about what is in it differ by the slash.
        if not any(denied(policies, folder + path, native_folder + bare, when) for path in {bare, name}):
            kept.append(name)
        if count % _TURN == 0:
            await asyncio.sleep(0)
    return kept


def denied(policies: CompiledPolicies, path: str, native_path: str, when: Circumstances | None) -> bool:
    """Tell whether a rule denies to list a name: root's holder is denied nothing."""
    question = Question(
        path=path, acl_capability="list", native_path=native_path, native_capability="list", when=when
    )
    verdict = decide(question, policies)
    return isinstance(verdict, Denied) and any(step.effect == "deny" for step in verdict.trace)
