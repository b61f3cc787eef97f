"""The one way of every request: seal, mount, identity, decision, ledger, act, ledger, answer.

A read writes one entry, durable before the answer leaves. A change writes its intent, durable before
anything happens, and its outcome, durable before the answer leaves. The commit of an entry shows
whether authority, or the data that was read, has changed since; then the request is decided, and a
read read, again (``storage/freshness.py``).

What spends something, a use of the caller's token or the room of a wrapped answer, has an intent, too.
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime

import msgspec

from secrethub.audit.event import Kind, Outcome
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.flat import flat_view
from secrethub.engines.identity import Identity
from secrethub.engines.memo import Granted
from secrethub.engines.mounts import Route, no_operation
from secrethub.engines.own_changes import present_fence
from secrethub.engines.runtime import Core
from secrethub.engines.system.seal_gate import admit_to_seal, record_refusal
from secrethub.engines.token.using import forget_used_up, spend
from secrethub.errors import (
    IntegrityFailure,
    InvalidRequest,
    LoginFailed,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Sealed,
    SecretHubError,
    Stale,
    TooManyRequests,
    Unavailable,
)
from secrethub.operations.admission import Admission
from secrethub.operations.call import Call
from secrethub.operations.context import context_of
from secrethub.operations.decision import allowed
from secrethub.operations.decode import decode_body
from secrethub.operations.identify import IDENTITIES, identify
from secrethub.operations.note import note_rest, request_note
from secrethub.operations.reread import reread
from secrethub.operations.wrap import refuse_wrapping, wrapped

_ATTEMPTS = 8
_OPTIMISTIC = 3
"""Attempts before nobody else may change authority meanwhile (``storage/fence.py``)."""


async def perform(core: Core, call: Call) -> Answer:
    """Carry out ``call`` and return its answer; everything about it is durable by then.

    Raises:
        SecretHubError: any of the tree; refusals are in the ledger already.
    """
    started = time.monotonic()
    path = flat_view(call.method, call.path)
    request: _Request | None = None
    name, outcome = "unknown", "internal"
    core.ledger.open += 1
    try:
        admission = Admission(core, call)
        known = await reread(core, call, path, admission)
        if known is not None:
            (name, answer), outcome = known, "done"
            return answer
        request = _Request(core, call, path, admission)
        answer = await request.run()
        outcome = "done"
        return answer
    except SecretHubError as exc:
        outcome = exc.code
        raise
    finally:
        core.ledger.open -= 1
        name = name if request is None else request.operation_name
        core.metrics.requests.count(name, outcome, time.monotonic() - started)


class _Request:
    """The state of one request while it is carried out."""

    def __init__(self, core: Core, call: Call, path: str, admission: Admission) -> None:
        self.core = core
        self.call = call
        self.path = path
        self.route: Route | None = None
        self.operation: Operation | None = None
        """What the route's engine offers for it."""
        self.identity: Identity | None = None
        self.trouble: IntegrityFailure | None = None
        """Why it cannot be told who answers, or what is there."""
        self.warnings: tuple[str, ...] = ()
        self.admission = admission
        self.intended = False
        self.recorded = False
        """Whether the ledger has how the present attempt ended, or may have it."""
        self.left: int | None = None
        """How many uses the caller's token has left, once this one was counted."""
        self.moves = 0
        self.looked = False
        """Whether the database was asked for what changed after the request came."""
        self.fence = present_fence(core, [])

    @property
    def operation_name(self) -> str:
        return "unknown" if self.operation is None else self.operation.name

    @property
    def _kind(self) -> Kind:
        """What the entry that ends the request is."""
        return "outcome" if self.intended else "request"

    async def run(self) -> Answer:
        try:
            return await self._until_fresh()
        except Exception as exc:
            # An intent has its outcome, and what is answered as a defect has an entry, unless the
            # ledger itself is what cannot be written.
            ours = isinstance(exc, SecretHubError)
            if not self.recorded and (self.intended or (not ours and self.core.unsealed)):
                name = exc.code if isinstance(exc, SecretHubError) else "internal"
                reason = f"{name}: {exc if ours else type(exc).__name__}"
                with contextlib.suppress(SecretHubError):
                    await self._append(self._kind, "failed", reason)
            raise
        finally:
            if self.left == 0 and self.identity is not None:
                await forget_used_up(self.core, self.identity.key)
            if self.fence.written:
                await note_rest(self.core, self.call, self.path, self.identity, self.fence.written)

    async def _until_fresh(self) -> Answer:
        for _ in range(_OPTIMISTIC):
            try:
                return await self._attempt()
            except Stale as exc:
                await self._look(exc)
        for _ in range(_ATTEMPTS - _OPTIMISTIC):
            async with self.core.authority.turns.turn():
                await self._look()
                with contextlib.suppress(Stale):
                    return await self._attempt(in_turn=True)
        raise Unavailable("authority or data changes faster than this request can be decided")

    async def _look(self, why: Stale | None = None) -> None:
        await self.core.catch_up(why)
        self.looked = True

    async def _attempt(self, *, in_turn: bool = False) -> Answer:
        """Find, decide and carry out once.

        Raises:
            Stale: what that rests on was overtaken; nothing was disclosed or changed.
        """
        core = self.core
        # Both before anything is looked up, so that whatever changes from here on is noticed.
        position = core.caches.position
        self.moves = core.caches.authority_moves
        self.recorded = False
        fence = present_fence(core, self.fence.written)
        self.fence = msgspec.structs.replace(fence, in_turn=in_turn)
        await self._find()
        operation = self.operation
        if operation is not None and (not operation.audited or operation.keyless):
            context = self._context(core.clock.now())
            try:
                refuse_wrapping(operation, self.call)
                body, warnings = decode_body(operation, self.call)
            except InvalidRequest as exc:
                if operation.keyless:
                    admit_to_seal(context)
                    await record_refusal(context, operation.name, exc)
                raise
            return _warned(await operation.handler(context, body), warnings)
        core.keyring()
        context = await self._decide(position)
        body, self.warnings = await self._decoded(position)
        if self._declared().changes or self._spends:
            await self._begin(position)
        if self._declared().changes:
            return await self._change(context, body)
        return await self._read(context, position, body)

    async def _find(self) -> None:
        self.route = self.operation = self.trouble = None
        try:
            self.route = await self.core.mounts.route(
                self.call.method, self.path, sealed=not self.core.unsealed
            )
            self.operation = self.route.operation
        except NotFound:
            if not self.core.unsealed:
                raise self.core.sealed() from None
        except IntegrityFailure as exc:
            self.trouble = exc

    async def _decoded(self, position: int) -> tuple[object, tuple[str, ...]]:
        try:
            refuse_wrapping(self._declared(), self.call)
            return decode_body(self._declared(), self.call)
        except InvalidRequest as exc:
            await self._refuse(exc, position)
            raise

    def _declared(self) -> Operation:
        if self.operation is None:
            raise AssertionError("decided without an operation")
        return self.operation

    def _context(self, now: datetime) -> Context:
        return context_of(
            self.core,
            self.call,
            path=self.path,
            route=self.route,
            identity=self.identity,
            fence=self.fence,
            now=now,
        )

    async def _decide(self, position: int) -> Context:
        """Return the context of an allowed request; write down and raise every refusal."""
        core = self.core
        operation = self.operation
        now = core.clock.now()
        try:
            if operation is not None and operation.public:
                self.admission.ask(self.route)
                await self.admission.limit(self.path, self.route, None)
                return self._context(now)
            self.identity = None
            try:
                self.identity = await identify(
                    core, self.call.credential, now, self.call.client_address, spent=self.left is not None
                )
            finally:
                await self.admission.limit(self.path, self.route, self.identity)
            context = self._context(now)
            verdict, self.trouble = await allowed(context, self.route, self.call.method, self.trouble)
            if self.trouble is not None:
                # Not a question of rights: whoever may ask is told that something is wrong.
                core.metrics.integrity_failures.labels(self.trouble.table).inc()
                await self._refuse(self.trouble, position)
            if operation is None:
                if self.route is None:
                    raise NotFound("no handler for route")
                raise no_operation(self.route, self.path)
            kept = operation.request is None and not operation.changes and not verdict.conditional
            if self.route is not None and kept and not self._spends:
                core.memo.put(self.call.method, self.path, Granted(self.identity, self.route), self.moves)
            return context
        except IntegrityFailure as exc:
            if exc is self.trouble:
                raise
            core.metrics.integrity_failures.labels(exc.table).inc()
            await self._refuse(PermissionDenied(f"integrity: {exc}"), position)
            raise
        except SecretHubError as exc:
            await self._refuse(exc, position)
            raise

    @property
    def _spends(self) -> bool:
        """Whether the request costs something even if it only reads."""
        limited = self.identity is not None and self.identity.uses_left is not None
        return limited or self.call.wrap_ttl > 0

    async def _refuse(self, exc: SecretHubError, position: int) -> None:
        """Write down a refusal and raise it, or Stale when it may no longer be true."""
        core = self.core
        if isinstance(exc, (Sealed, Unavailable, Stale, QuotaExceeded)):
            raise exc
        if self.identity is None:
            if isinstance(exc, TooManyRequests):
                raise exc  # counted, and in a summary later
            core.throttle_anonymous.admit(core.clock.monotonic(), self.call.client_address)
        await self._append(
            self._kind,
            "denied" if isinstance(exc, PermissionDenied) else "refused",
            exc.reason if isinstance(exc, PermissionDenied) else f"{exc.code}: {exc}",
        )
        # A token renewed, or a certificate given, elsewhere takes nothing away and moves no generation, but
        # who was refused for want of it is asked again, once.
        if core.caches.moved(position, () if self.looked else IDENTITIES):
            raise Stale("authority moved on")
        await self._spend()
        raise exc

    async def _append(
        self, kind: Kind, outcome: Outcome, reason: str = "", answer: Answer | None = None
    ) -> None:
        self.recorded = kind != "intent"
        await self.core.ledger.append(
            request_note(
                self.core,
                self.call,
                kind=kind,
                operation=self.operation_name,
                path=self.path,
                identity=self.identity,
                outcome=outcome,
                reason=reason,
                declared=self.operation,
                answer=answer.detail if answer is not None else None,
                with_body=kind != "outcome",
                written=self.fence.written,
            )
        )
        self.fence.written.clear()
        if not self.core.unsealed:
            raise self.core.sealed()

    async def _read(self, context: Context, position: int, body: object) -> Answer:
        failure: SecretHubError | None = None
        answer = Answer()
        try:
            answer = await self._finished(await self._declared().handler(context, body))
        except (Sealed, Unavailable, Stale):
            raise
        except SecretHubError as exc:
            failure = exc
        if failure is None:
            await self._append(self._kind, "done", answer=answer)
        elif isinstance(failure, NotFound):
            await self._append(self._kind, "missing")
        else:
            if isinstance(failure, IntegrityFailure):
                self.core.metrics.integrity_failures.labels(failure.table).inc()
            await self._refuse(failure, position)
        # Data read after a look is no older than the request: it may have changed again since, or a
        # secret written without a pause could never be read.
        if self.core.caches.moved(position, () if self.looked else context.touched) or self._ended():
            raise Stale("what was read has changed")
        if failure is not None:
            raise failure
        return answer

    async def _begin(self, position: int) -> None:
        """Make the intent durable, once, and count the use of a token that has a number of them."""
        if not self.intended:
            await self._append("intent", "begun")
            self.intended = True
            if self.core.caches.moved(position, ()) or self._ended():
                raise Stale("authority moved on")
        try:
            await self._spend()
        except PermissionDenied as exc:
            await self._append("outcome", "denied", exc.reason)
            raise

    async def _spend(self) -> None:
        """Count a use, once for a request, allowed or not."""
        identity = self.identity
        if self.left is None and identity is not None and identity.uses_left is not None:
            self.left = await spend(self.core, self.fence, identity)

    async def _finished(self, answer: Answer) -> Answer:
        """Return what is given out: with the warnings, and wrapped if that was asked for."""
        operation = self._declared()
        if operation.public and answer.auth is not None:
            self.admission.give_back()
        answer = _warned(answer, self.warnings)
        if not self.call.wrap_ttl:
            return answer
        return await wrapped(self.core, self.call, answer, self.fence, done=operation.changes)

    async def _change(self, context: Context, body: object) -> Answer:
        try:
            answer = await self._finished(await self._declared().handler(context, body))
        except Stale:
            raise
        except (PermissionDenied, LoginFailed) as exc:
            await self._append("outcome", "denied", exc.reason)
            raise
        except IntegrityFailure as exc:
            self.core.metrics.integrity_failures.labels(exc.table).inc()
            raise
        if not self._declared().sealing:
            await self._append("outcome", "done", answer=answer)
        return answer

    def _ended(self) -> bool:
        """Tell whether the caller's token ended meanwhile: the commit may have taken long."""
        until = None if self.identity is None else self.identity.good_until
        return until is not None and until <= self.core.clock.now()


def _warned(answer: Answer, warnings: tuple[str, ...]) -> Answer:
    return msgspec.structs.replace(answer, warnings=(*answer.warnings, *warnings)) if warnings else answer
