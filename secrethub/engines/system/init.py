"""Init: making the cluster, opened by unseal shares or by a key service."""

from __future__ import annotations

import contextlib

import msgspec

from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.system.init_token import check_init_token
from secrethub.engines.system.seal import asked_status, until_open
from secrethub.engines.system.seal_answers import InitAnswer, InitStatusAnswer
from secrethub.engines.system.seal_gate import checks, from_loopback, origin_of
from secrethub.errors import InvalidRequest, SecretHubError
from secrethub.seal.shares import encode_share
from secrethub.seal.slots import check_numbers

_SHARES, _THRESHOLD = 5, 3


class InitRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``init_token`` is asked for from beyond loopback; ``service`` is a key in the node's settings.

    What would encrypt the shares is known only to be refused: the answer has no place for a warning, and it
    gives the shares out in clear. Vault's clients say ``stored_shares`` 1 for a key service.
    """

    secret_shares: int | None = None
    secret_threshold: int | None = None
    init_token: str = ""
    pgp_keys: list[str] = []
    root_token_pgp_key: str = ""
    stored_shares: int = 0
    recovery_shares: int | None = None
    recovery_threshold: int | None = None
    recovery_pgp_keys: list[str] = []
    service: str = ""

    @property
    def by_service(self) -> bool:
        """Whether a key service shall open the cluster. Vault's command line sends zeros for neither."""
        return bool(self.service or self.recovery_shares or self.recovery_threshold)

    def numbers(self) -> tuple[int, int]:
        """Return how many shares to make, and how many of them count.

        Raises:
            InvalidRequest: they cannot be made, or something is asked for that is not done.
        """
        kind, other = ("recovery", "secret") if self.by_service else ("secret", "recovery")
        unsupported = ["pgp_keys", "root_token_pgp_key", "recovery_pgp_keys"]
        if not (self.by_service and self.stored_shares == 1):
            unsupported.append("stored_shares")
        for name in unsupported:
            if getattr(self, name):
                raise InvalidRequest(f"{name} is not supported; nothing was made")
        for name in (f"{other}_shares", f"{other}_threshold"):
            if getattr(self, name):
                raise InvalidRequest(f"{name} cannot be asked for beside {kind} shares; nothing was made")
        shares, threshold = getattr(self, f"{kind}_shares"), getattr(self, f"{kind}_threshold")
        shares = _SHARES if shares is None else shares
        threshold = _THRESHOLD if threshold is None else threshold
        check_numbers(shares, threshold, kind)
        return shares, threshold


def init_operations() -> tuple[Operation, ...]:
    """Return the operations about a cluster's beginning."""
    return (
        Operation(
            name="sys.init-status",
            method="read",
            pattern="init",
            handler=init_status,
            response=InitStatusAnswer,
            capability="read",
            public=True,
            audited=False,
            summary="Tell whether there is a cluster.",
        ),
        Operation(
            name="sys.init",
            method="write",
            pattern="init",
            handler=init,
            response=InitAnswer,
            capability="update",
            request=InitRequest,
            changes=True,
            public=True,
            keyless=True,
            summary="Make the cluster.",
        ),
    )


async def init_status(context: Context, _body: None) -> Answer:
    """Answer whether there is a cluster."""
    status = await asked_status(context.core)
    return Answer(data={"initialized": status.initialised}, bare=True)


async def init(context: Context, body: InitRequest) -> Answer:
    """Make the cluster and give out shares and root token, once."""
    core = context.core
    async with checks(context, "sys.init"):
        # Before the one-time token is used up.
        shares, threshold = body.numbers()
        if not from_loopback(context):
            check_init_token(context, body.init_token)
    service = body.service if body.by_service else None
    result = await core.seal.initialise(shares, threshold, origin_of(context), service)
    # Nobody can ask for the shares again: from here on nothing keeps them from being answered.
    with contextlib.suppress(SecretHubError):
        core.seal_status = await core.seal.status()
    if body.by_service:
        await until_open(core)
    encoded = [encode_share(share) for share in result.keys]
    keys, keys_base64 = [text for text, _ in encoded], [text for _, text in encoded]
    if body.by_service:
        made = {"keys": [], "keys_base64": [], "recovery_keys": keys, "recovery_keys_base64": keys_base64}
    else:
        made = {"keys": keys, "keys_base64": keys_base64}
    return Answer(data={**made, "root_token": result.root_token}, bare=True)
