"""How long one decision takes, with twenty policies of both languages: ``./dev bench policy``.

Nothing is started: this is the compiled decision alone (``secrethub/policy/decision.py``), once over paths
that were never asked about before and once over a few that are asked about again and again. A request that
was allowed before is not even decided again (``secrethub/engines/memo.py``), which is measured beside it. The
aim is less than 20 µs for a decision.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from secrethub.engines.identity import Identity
from secrethub.engines.memo import DecisionMemo, Granted
from secrethub.engines.mounts import BUILT_IN, Route
from secrethub.engines.system import SystemEngine
from secrethub.policy.builtin import DEFAULT_POLICY_SOURCE
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, CompiledPolicies, Question, compile_policies, decide
from secrethub.policy.document import ParsedPolicy, parse_policy
from secrethub.storage.freshness import Caches

AIM_MICROSECONDS = 20.0
POLICIES = 20
_ROUNDS = 7
_COLD = 20_000
_WARM = 200_000
_NOW = datetime(2030, 1, 16, 12, 0, tzinfo=UTC)


def native(team: str) -> ParsedPolicy:
    """Return the policy of a team as people write it: its secrets, a denial, and a condition."""
    return parse_policy(
        f"native-{team}",
        {
            "version": "1",
            "statements": [
                {
                    "effect": "allow",
                    "paths": [f"secrets/{team}/**", f"secrets/shared/*/{team}-*"],
                    "capabilities": ["read", "list"],
                },
                {"effect": "deny", "paths": [f"secrets/{team}/root/*"], "capabilities": ["*"]},
                {
                    "effect": "allow",
                    "paths": [f"secrets/{team}-night/**"],
                    "capabilities": ["read"],
                    "conditions": {
                        "source_ip": ["10.0.0.0/8", "192.168.0.0/16"],
                        "time": {"from": "08:00", "until": "18:00", "zone": "Europe/Berlin"},
                        "weekdays": ["mon", "tue", "wed", "thu", "fri"],
                    },
                },
            ],
        },
    )


def acl(team: str) -> ParsedPolicy:
    """Return the same in Vault's language."""
    return parse_policy(
        f"acl-{team}",
        f"""
        path "secret/data/{team}/*" {{ capabilities = ["create", "read", "update"] }}
        path "secret/metadata/{team}/*" {{ capabilities = ["list"] }}
        path "secret/data/{team}/+/db" {{ capabilities = ["read"] }}
        path "secret/data/shared/+/{team}-*" {{ capabilities = ["read"] }}
        """,
    )


def policies() -> CompiledPolicies:
    """Return twenty policies of one identity, ``default`` among them."""
    teams = [f"team-{number}" for number in range(POLICIES // 2)]
    parsed = [native(team) for team in teams] + [acl(f"acl-{team}") for team in teams[1:]]
    compiled = compile_policies([*parsed, parse_policy("default", DEFAULT_POLICY_SOURCE)])
    assert len(compiled.names) == POLICIES
    return compiled


def questions(count: int, chance: random.Random) -> list[Question]:
    """Return questions about so many paths: allowed ones, denied ones, conditional ones."""
    when = Circumstances(now=_NOW, client_address="10.1.2.3", token_ttl=3600)
    kinds: tuple[Callable[[int], str], ...] = (
        lambda n: f"team-{n}/app/{chance.randrange(10**9)}/db",
        lambda n: f"acl-team-{n}/app-{chance.randrange(10**9)}/db",
        lambda n: f"team-{n}-night/{chance.randrange(10**9)}",
        lambda n: f"team-{n}/root/{chance.randrange(10**9)}",
        lambda n: f"nobody/{n}/{chance.randrange(10**9)}/x/y",
        lambda n: f"shared/{chance.randrange(10**9)}/team-{n}-db",
    )
    found = []
    for number in range(count):
        path = kinds[number % len(kinds)](number % (POLICIES // 2))
        found.append(
            Question(
                path=f"secret/data/{path}",
                acl_capability="read",
                native_path=f"secrets/{path}",
                native_capability="read",
                when=when,
            )
        )
    return found


def microseconds(work: Callable[[], Any], count: int) -> float:
    """Return the processor time of one of ``count``; the best of several rounds.

    A decision only computes, so this is what it takes on a core of its own, whoever else is busy.
    """
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def measure() -> dict[str, Any]:
    """Measure and return the numbers, in microseconds."""
    chance = random.Random(1)
    compiled = policies()
    cold = questions(_COLD, chance)
    few = questions(60, chance)

    def ask(asked: Sequence[Question], times: int = 1) -> None:
        for _ in range(times):
            for question in asked:
                decide(question, compiled)

    allowed = sum(isinstance(decide(question, compiled), Allowed) for question in cold)
    assert 0 < allowed < len(cold)
    times = _WARM // len(few)
    single = [microseconds(lambda one=one: ask([one], 2000), 2000) for one in few]  # type: ignore[misc]
    return {
        "policies": POLICIES,
        "decision_new_paths_us": microseconds(lambda: ask(cold), len(cold)),
        "decision_same_paths_us": microseconds(lambda: ask(few, times), len(few) * times),
        "decision_slowest_kind_us": max(single),
        "decision_median_kind_us": statistics.median(single),
        "memoised_us": remembered(),
        "compile_us": microseconds(policies, 1),
        "aim_us": AIM_MICROSECONDS,
    }


def remembered() -> float:
    """Return what looking up a decision costs that was taken before."""
    mount, engine = BUILT_IN[0], SystemEngine()
    route = Route(mount=mount, engine=engine, operation=engine.operations()[0], params={}, known=True)
    memo = DecisionMemo(Caches())
    identity = Identity(kind="token", key="0" * 64, name="bench", policies=("default",))
    paths = [f"secret/data/{number}" for number in range(500)]
    for path in paths:
        memo.put("read", path, Granted(identity, route), 0)

    def look_up() -> None:
        for path in paths:
            if memo.get(identity.key, "read", path) is None:
                raise AssertionError(path)

    return microseconds(look_up, len(paths))


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when a decision about a path that was never asked about stays within the aim."""
    parser = argparse.ArgumentParser(prog="./dev bench policy")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(argv)
    found = measure()
    within = found["decision_new_paths_us"] < AIM_MICROSECONDS
    if options.json:
        print(json.dumps({key: round(value, 2) for key, value in found.items()} | {"within_aim": within}))
        return 0 if within else 1
    print(f"{POLICIES} policies of both languages, {len(questions(6, random.Random(0)))} kinds of paths")
    for label, key in (
        ("a decision, paths never asked about", "decision_new_paths_us"),
        ("a decision, the same 60 paths again and again", "decision_same_paths_us"),
        ("  the median of these paths", "decision_median_kind_us"),
        ("  the slowest of these paths", "decision_slowest_kind_us"),
        ("a decision that is remembered (engines/memo.py)", "memoised_us"),
        ("reading and compiling all policies, once", "compile_us"),
    ):
        print(f"  {label:<50} {found[key]:10.2f} µs")
    print(f"  aim: a decision below {AIM_MICROSECONDS:.0f} µs: {'met' if within else 'missed'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
