"""Wrapping on the way out: whoever asks for it gets a token instead of the answer.

The answer is kept before the outcome is written down, so what the ledger calls done can be opened. An
answer without content is given as it is.
"""

from __future__ import annotations

from secrethub.auth.digests import accessor_digest, token_digest
from secrethub.engines.engine import Answer, Fence, Operation
from secrethub.engines.own_changes import present_fence
from secrethub.engines.runtime import Core
from secrethub.engines.wrapping import keep, kept
from secrethub.errors import InvalidRequest, Stale, Unavailable
from secrethub.operations.call import Call

_ATTEMPTS = 8


def refuse_wrapping(operation: Operation, call: Call) -> None:
    """Refuse, before anything happens, to wrap what cannot be.

    Raises:
        InvalidRequest: this operation has no answer that could be kept.
    """
    fit = operation.wraps and operation.audited and not (operation.keyless or operation.sealing)
    # What anybody may read is kept for nobody: strangers must not fill the database.
    anonymous = operation.public and not operation.changes
    if call.wrap_ttl and (anonymous or not fit):
        raise InvalidRequest("the answer to this request cannot be wrapped")


async def wrapped(core: Core, call: Call, answer: Answer, fence: Fence, *, done: bool) -> Answer:
    """Keep an answer and return what is given out instead.

    Args:
        core: this process.
        call: which asks for it.
        answer: of the operation.
        fence: of the decision.
        done: something was changed already, so it cannot be decided again: the answer is kept whatever
            has changed meanwhile.

    Raises:
        InvalidRequest: it cannot be kept.
        Stale: the decision is older than the database; nothing was kept.
    """
    content = kept(answer)
    if answer.data is None and answer.auth is None:
        return answer
    keyring = core.keyring()
    for _ in range(_ATTEMPTS):
        try:
            async with core.authority.issue(fence) as change:
                info = await keep(
                    change,
                    keyring,
                    core.clock.now(),
                    content,
                    ttl=call.wrap_ttl,
                    path=call.path,
                    wrapped_accessor="" if answer.auth is None else answer.auth.accessor,
                )
        except Stale:
            if not done:
                raise
            await core.ledger.look()
            fence = present_fence(core, fence.written)
        else:
            detail = {
                **answer.detail,
                "wrapped": {
                    "token": token_digest(keyring, info.token)[:16],
                    "accessor": accessor_digest(keyring, info.accessor)[:16],
                    "ttl": info.ttl,
                },
            }
            return Answer(wrap_info=info, detail=detail, undelivered=answer.undelivered)
    raise Unavailable("the change was made, but its answer could not be wrapped")
