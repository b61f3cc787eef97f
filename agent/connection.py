"""Keeps one conversation with Core open: reconnects with full jitter, goes elsewhere when told to.

Who uses it sees requests and events only. Requests wait a little while there is no conversation,
and a read is asked once more when its conversation ended under it. Watches belong to a
conversation; what is wanted (:mod:`agent.watches`) is watched again on every new conversation, before
anybody is told that it is open, and again later what was refused in passing.

Where gateways are Core says anew on every conversation. When none of them answers for some rounds,
the port where gateways usually listen is tried on the hosts from the settings too: the certificate
tells whether it is a gateway of the agent's cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from agent.backoff import CAP, Backoff
from agent.conversation import Closed, Conversation, converse
from agent.events import Events
from agent.identity import Identity
from agent.watches import Watches, batches
from agent.witness import LedgerWitness
from secrethub.clock import Clock
from secrethub.errors import SecretHubError, TooLarge, Unavailable
from secrethub.wire import messages as wire
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.session import Request

A = TypeVar("A", bound=wire.CoreMessage)
T = TypeVar("T")

GRACE = 3.0
"""Seconds a request waits for a conversation; Core counts as away when there was none for so long."""
SETTLE = 5.0
"""Seconds for answers under way before a conversation is left on purpose."""
ROUNDS = 2
"""How often every known gateway is tried in vain before others are tried too."""

_log = logging.getLogger(__name__)


class IdentityRefused(SecretHubError):
    """This identity cannot be used any more; its holder has to enrol again.

    Attributes:
        revoked: Core does not accept the certificate; otherwise it has expired.
    """

    code = "identity_refused"

    def __init__(self, message: str = "", revoked: bool = False) -> None:
        super().__init__(message, revoked)
        self.revoked = revoked


class Connection:
    """The agent's way to Core.

    Args:
        identity: shown to gateways until :meth:`use` gives another.
        name: the agent's name, for people.
        urls: the gateways that Core named last.
        clock: tells whether the certificate has expired.
        backoff: how long to wait between tries.
        guesses: where gateways may be when none of ``urls`` answers.
        witness: keeps what gateways show of the ledger.
    """

    def __init__(
        self,
        identity: Identity,
        name: str,
        urls: Sequence[str],
        clock: Clock,
        backoff: Backoff,
        guesses: Sequence[str] = (),
        witness: LedgerWitness | None = None,
    ) -> None:
        self._identity = identity
        self._name = name
        self._urls = backoff.shuffled(urls)
        self._known = frozenset(urls)
        self._guesses = tuple(guesses)
        self._witness = witness
        self._failures = 0
        self._clock = clock
        self._backoff = backoff
        self._watches = Watches()
        self._conversation: Conversation | None = None
        self._open = asyncio.Event()
        self._leave = asyncio.Event()
        self._rewatch = asyncio.Event()
        self._refused = asyncio.Event()
        self._lost_at = time.monotonic()

    @property
    def identity(self) -> Identity:
        """The identity in use."""
        return self._identity

    @property
    def node(self) -> str | None:
        """The gateway's node while a conversation is open."""
        return self._conversation.node if self._conversation else None

    @property
    def away(self) -> bool:
        """Whether there has been no conversation for longer than a moment."""
        return self._conversation is None and time.monotonic() - self._lost_at > GRACE

    def use(self, identity: Identity) -> None:
        """Show another certificate from now on, on a new conversation."""
        self._identity = identity
        self._leave.set()

    async def run(self, events: Events) -> None:
        """Hold a conversation for as long as the agent runs.

        Raises:
            IdentityRefused: no gateway accepts the identity any more.
        """
        while True:
            if self._identity.validity.not_after <= self._clock.now():
                raise IdentityRefused("the agent's certificate has expired")
            url = self._next_url()
            began = time.monotonic()
            pause: float | None = None
            try:
                await self._converse(url, events)
                pause = 0.0
            except Closed as exc:
                _log.warning("the connection to Core ended", extra={"url": url, "error": str(exc)})
                pause = self._judge(exc)
            except (SecretHubError, OSError) as exc:
                _log.warning("no connection to Core", extra={"url": url, "error": str(exc)})
            if url == self._urls[0]:
                self._urls.append(self._urls.pop(0))
            if time.monotonic() - began > CAP:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next() if pause is None else pause)

    async def read(self, path: str, version: int | None, application: str | None = None) -> wire.Result:
        """Read a secret, on behalf of an application that Core knows by name or of none.

        Raises:
            SecretHubError: what Core answered; Unavailable when it did not.
        """
        try:
            return await self._read(path, version, application)
        except Closed:
            return await self._read(path, version, application)

    async def renew(self, csr: str) -> wire.Certificate:
        """Ask for a new certificate.

        Raises:
            SecretHubError: what Core answered; Unavailable when it did not.
        """
        return await self.ask(lambda number: wire.RenewCertificate(id=number, csr=csr), wire.Certificate)

    async def watch(self, path: str, application: str) -> None:
        """Be told of changes of ``path``, on this conversation and on all that follow.

        Refused or beyond the application's share it is not: see :meth:`is_watched`.

        When the conversation ends meanwhile, the path is watched on the next one.

        Raises:
            Unavailable: no conversation, or no answer.
        """
        if self._watches.want(path, application) and not self._watches.is_settled(path):
            with contextlib.suppress(Closed):
                await self._watch(await self._conversing(), [path])

    def is_watched(self, path: str) -> bool:
        """Tell whether Core announces changes of ``path`` now."""
        return self._watches.is_granted(path)

    async def unwatch(self, paths: Iterable[str]) -> None:
        """Stop watching ``paths``."""
        await self._tell_unwatched(self._watches.drop(paths))

    async def unwatch_all_but(self, keep: set[str]) -> None:
        """Stop watching what is not in ``keep``."""
        await self._tell_unwatched(self._watches.drop_all_but(keep))

    async def tell(self, message: wire.Status | wire.Confirm | wire.Unwatch) -> None:
        """Send what needs no answer; without a conversation nothing happens."""
        if self._conversation is not None:
            try:
                await self._conversation.send(message)
            except (Unavailable, TooLarge) as exc:
                _log.warning("Core was not told", extra={"error": str(exc)})

    async def _tell_unwatched(self, paths: Iterable[str]) -> None:
        for some in batches(paths):
            await self.tell(wire.Unwatch(paths=some))

    async def _read(self, path: str, version: int | None, application: str | None) -> wire.Result:
        def build(number: int) -> wire.Read:
            return wire.Read(id=number, path=path, version=version, application=application)

        return await self.ask(build, wire.Result)

    async def ask(self, build: Callable[[int], Request], answer: type[A]) -> A:
        """Ask Core; raises what it answered instead, and Unavailable when it did not."""
        return await (await self._conversing()).ask(build, answer)

    async def _conversing(self) -> Conversation:
        """Return the open conversation; wait for one unless Core is away."""
        if self._conversation is not None and self._conversation.ended:
            self._close_off()
        if self._conversation is None and not self.away:
            try:
                async with asyncio.timeout(GRACE):
                    await self._open.wait()
            except TimeoutError:
                _log.debug("no conversation within the grace time")
        if self._conversation is None:
            raise Unavailable("Core cannot be reached")
        return self._conversation

    async def _converse(self, url: str, events: Events) -> None:
        """Hold one conversation until it is to be left; otherwise raises how it ended."""
        drained: list[asyncio.TimerHandle] = []

        def push(message: wire.Message) -> None:
            match message:
                case wire.Changed():
                    events.changed(message.path)
                case wire.PolicyChanged():
                    self._rewatch.set()
                case wire.CertificateDue():
                    events.certificate_due()
                case wire.Checkpoint() if self._witness is not None:
                    self._witness.take(message)
                case wire.OrderDue():
                    events.order_due()
                case wire.Drain():
                    drained.append(self._drain(message, url, events))

        self._leave.clear()
        self._rewatch.clear()
        self._refused.clear()
        seen = b"" if self._witness is None else self._witness.shown
        async with converse(self._identity, url, self._name, seen) as conversation:
            listening = asyncio.create_task(conversation.listen(push), name=f"listen:{conversation.node}")
            asking = asyncio.create_task(
                self._ask_again(conversation, events), name=f"watch:{conversation.node}"
            )
            background = (listening, asking)
            try:
                await self._guarded(background, self._watch_anew(conversation))
                self._conversation = conversation
                self._failures = 0
                self._move_to(conversation.gateways, url, events)
                self._open.set()
                _log.info("connected to Core", extra={"url": url, "node": conversation.node})
                events.opened()
                while await self._guarded(background, self._woken()):
                    await self._guarded(background, self._watch_anew(conversation))
                    events.changed_all()
                self._close_off()
                await conversation.settle(SETTLE)
                await conversation.close()
            finally:
                self._close_off()
                for timer in drained:
                    timer.cancel()
                for task in background:
                    task.cancel()
                # What they ended of is known, or asyncio would report that nobody took it.
                await asyncio.gather(*background, return_exceptions=True)

    async def _guarded(self, background: Iterable[asyncio.Task[None]], work: Coroutine[Any, Any, T]) -> T:
        """Do some work, but no longer than the conversation lasts."""
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait([*background, task], return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {task} if not task.done() else ():
                ended.result()
            return task.result()
        finally:
            task.cancel()

    async def _woken(self) -> bool:
        """Wait until there is something to do; tell whether it is to watch again."""
        tasks = [asyncio.create_task(event.wait()) for event in (self._leave, self._rewatch)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return not self._leave.is_set()
        finally:
            for task in tasks:
                task.cancel()

    async def _watch_anew(self, conversation: Conversation) -> None:
        self._rewatch.clear()
        self._watches.unsettle()
        await self._watch(conversation, self._watches.unsettled())

    async def _ask_again(self, conversation: Conversation, events: Events) -> None:
        """Ask again for watches that were refused in passing, until cancelled."""
        backoff = Backoff()
        while True:
            await self._refused.wait()
            await asyncio.sleep(backoff.next())
            self._refused.clear()
            try:
                granted = await self._watch(conversation, self._watches.unsettled())
            except SecretHubError as exc:
                _log.info("watches could not be asked for again", extra={"error": str(exc)})
                self._refused.set()
                continue
            for path in granted:
                events.changed(path)
            if not self._refused.is_set():
                backoff.reset()

    async def _watch(self, conversation: Conversation, paths: Iterable[str]) -> list[str]:
        """Ask for watches; return what is granted now and was not before."""
        granted: list[str] = []
        for some in batches(paths):
            answer = await conversation.ask(_asking_for(some), wire.Watching)
            fresh, unwanted = self._watches.settle(answer)
            granted += fresh
            if unwanted:
                await conversation.send(wire.Unwatch(paths=tuple(unwanted)))
            if answer.refused:
                first = answer.refused[0]
                extra = {"paths": len(answer.refused), "first": first.path, "error": first.code}
                _log.info("not watched", extra=extra)
            if not all(self._watches.is_settled(path) for path in some):
                self._refused.set()
        return granted

    def _next_url(self) -> str:
        """Return where to try now; after some rounds in vain there are more places to try."""
        if self._failures >= ROUNDS * len(self._urls):
            self._urls[:0] = [guess for guess in self._guesses if guess not in self._urls]
        self._failures += 1
        return self._urls[0]

    def _move_to(self, named: Sequence[str], url: str, events: Events) -> None:
        """Know the gateways that Core named, and the one in use: it is known to work."""
        usable = [other for other in named if other.startswith("wss://") and other != url]
        known = frozenset((url, *usable))
        if named and known != self._known:
            self._known = known
            self._urls = [url, *self._backoff.shuffled(usable)]
            events.moved((*usable, url))

    def _drain(self, message: wire.Drain, url: str, events: Events) -> asyncio.TimerHandle:
        """Put the gateways that Core named first and this one last, and leave at a random moment."""
        named = [other for other in message.urls if other.startswith("wss://") and other != url]
        if not self._known.issuperset(named):
            self._known |= frozenset(named)
            events.moved(tuple(self._known))
        known = [other for other in self._urls if other not in named and other != url]
        self._urls = [*self._backoff.shuffled(named), *known, url]
        moment = self._backoff.jitter(message.within * 0.8)
        return asyncio.get_running_loop().call_later(moment, self._leave.set)

    def _judge(self, closed: Closed) -> float | None:
        """Return how long to stay away after a close; None for the usual."""
        if closed.close_code == CloseCode.REVOKED:
            raise IdentityRefused("Core does not accept this agent's certificate any more", True)
        if closed.close_code in {CloseCode.REPLACED, CloseCode.CERTIFICATE_EXPIRED}:
            # Another process with this identity, or clocks that differ: hurry would not help.
            self._backoff.slow_down()
        return None if closed.retry_after is None else closed.retry_after + self._backoff.next()

    def _close_off(self) -> None:
        if self._conversation is not None:
            self._lost_at = time.monotonic()
        self._conversation = None
        self._open.clear()
        self._watches.unsettle()


def _asking_for(paths: tuple[str, ...]) -> Callable[[int], wire.Watch]:
    return lambda number: wire.Watch(id=number, paths=paths)
