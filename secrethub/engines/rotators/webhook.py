"""A webhook: a service of the operator's is told each step, and does with the new value what has to be done.

A step is a POST with a JSON body, signed with a key that both sides know: ``X-SecretHub-Signature`` is
``t=<seconds since the epoch>,v1=<hex>`` with the HMAC-SHA256 (RFC 2104) of ``<t>.<body>``. 2xx: it is
done, 4xx that it never will be, everything else that it is to be asked again. A step of a run may come more
than once and always says the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any, Literal

from secrethub.engines import outbound_http
from secrethub.engines.outbound import Refused as Disallowed
from secrethub.engines.outbound import WebTarget, parse_url
from secrethub.engines.rotators.generated import Shape
from secrethub.engines.rotators.rotator import Plan, Refused, Setup
from secrethub.errors import InvalidRequest, Unavailable

_SHORTEST_KEY = 32
_DEFINITELY = range(400, 500)
_LATER = frozenset({408, 425, 429})
"""Of those: not now (RFC 9110, RFC 8470, RFC 6585)."""

Step = Literal["create", "verify", "retire", "undo"]


class WebhookRotator:
    """Kind ``webhook``."""

    kind = "webhook"
    options = frozenset({"url", "ca_pem", "field", "length", "charset"})
    secrets = frozenset({"signing_key"})

    def check(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        """Check where it is, how values look, and that there is a key."""
        Shape(options)
        _target(options)
        _context(options)
        if len(secrets.get("signing_key", "")) < _SHORTEST_KEY:
            raise InvalidRequest(f"signing_key has at least {_SHORTEST_KEY} characters")

    def needs(self, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing beyond the secret itself."""
        return ()

    async def probe(self, setup: Setup, current: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Find out whether the service may be connected to. It is not told of a dry run."""
        await _check_address(setup)

    async def plan(
        self,
        setup: Setup,
        current: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Plan a new random value."""
        # What must not be connected to could not be told to undo either.
        with contextlib.suppress(Unavailable):
            await _check_address(setup)
        shape = Shape(setup.options)
        return {shape.field: shape.value()}, {}

    async def create(self, setup: Setup, plan: Plan) -> Mapping[str, Any]:
        """Tell ``create`` with the new value."""
        await _tell(setup, plan, "create", new=True)
        return {}

    async def verify(self, setup: Setup, plan: Plan) -> None:
        """Tell ``verify`` with the new value."""
        await _tell(setup, plan, "verify", new=True)

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """Tell ``retire`` with the old value."""
        await _tell(setup, plan, "retire", old=True)

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Tell ``undo`` with both: the old one is to be good, the new one is not."""
        await _tell(setup, plan, "undo", new=True, old=True)


async def _tell(setup: Setup, plan: Plan, step: Step, *, new: bool = False, old: bool = False) -> None:
    """Tell a step, with no more values than it is about.

    Raises:
        Refused: it will not be done.
        Unavailable: it was not done now.
    """
    target = _target(setup.options)
    field = Shape(setup.options).field
    told: dict[str, Any] = {"step": step, "path": setup.key, "run": setup.run, "field": field}
    if new:
        told["value"] = plan.fields[field]
    if old:
        told["old_value"] = plan.before.get(field)
    body = json.dumps(told).encode()
    headers = {
        "Content-Type": "application/json",
        "X-SecretHub-Signature": signature(setup.secrets["signing_key"], body, int(time.time())),
    }
    try:
        async with outbound_http.client(_context(setup.options)) as client:
            status = await outbound_http.post(client, setup.core.settings, target, headers, body)
    except Disallowed as exc:
        raise Refused(exc.message) from exc
    if status in _DEFINITELY and status not in _LATER:
        raise Refused(f"{target.host} refuses {step}: it answered {status}")
    if not 200 <= status < 300:
        raise Unavailable(f"{target.host} answered {status}")


def signature(key: str, body: bytes, at: int) -> str:
    """Return the signature of a body.

    Args:
        key: that both sides know.
        body: as it is sent.
        at: seconds since the epoch.
    """
    digest = hmac.digest(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hex()
    return f"t={at},v1={digest}"


def _target(options: Mapping[str, str]) -> WebTarget:
    target = parse_url(options.get("url", ""))
    if target.scheme != "https":
        raise InvalidRequest("url is https: secrets are sent there")
    return target


def _context(options: Mapping[str, str]) -> ssl.SSLContext:
    return outbound_http.trusting(options.get("ca_pem", ""))


async def _check_address(setup: Setup) -> None:
    try:
        await outbound_http.checked_address(setup.core.settings, _target(setup.options))
    except Disallowed as exc:
        raise Refused(exc.message) from exc
