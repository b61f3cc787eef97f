"""An earlier decision on the same read, so that it is not taken anew (``engines/memo.py``)."""

from __future__ import annotations

from secrethub.auth.networks import within
from secrethub.engines.memo import Granted
from secrethub.engines.runtime import Core
from secrethub.engines.token.known import digest_of
from secrethub.operations.call import Call, Token


def remembered(core: Core, call: Call, path: str) -> Granted | None:
    """Return a decision that allowed the same read before, if nothing has changed since.

    Args:
        core: this process.
        call: the request; only reads and lists with a token, whose answer is not wrapped, are kept.
        path: the one that decides.
    """
    credential = call.credential
    if call.method not in {"read", "list"} or call.wrap_ttl or not core.unsealed:
        return None
    if not isinstance(credential, Token):
        return None
    digest = digest_of(core, credential.secret.reveal())
    known = core.memo.get(digest, call.method, path, core.clock.now())
    # Where a request comes from is no part of what is kept.
    return known if known is None or within(call.client_address, known.identity.bound_cidrs) else None
