"""The runtime of one serving process: everything that an operation needs, wired once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from secrethub.audit.event import Origin
from secrethub.clock import Clock
from secrethub.crypto.keyring import Keyring
from secrethub.engines.bindings import BindingTable
from secrethub.engines.ceremonies import CeremonyPort
from secrethub.engines.data_keys import DataKeys
from secrethub.engines.engine import Engine
from secrethub.engines.memo import DecisionMemo
from secrethub.engines.metrics import Metrics
from secrethub.engines.mounts import MountTable
from secrethub.engines.quotas import Exchange, QuotaTable
from secrethub.engines.rights import PolicyCache
from secrethub.engines.throttle import Throttle
from secrethub.errors import PutBack, Sealed, Stale, UnknownKey
from secrethub.node import NodeSettings
from secrethub.storage.authority import APPROLES, ROLE_IDS, Authority
from secrethub.storage.authority_whole import WholeTable
from secrethub.storage.database import Database
from secrethub.storage.feed import Feed
from secrethub.storage.freshness import Caches, Changed
from secrethub.storage.lease_lookups import Lookups
from secrethub.storage.lease_makings import Makings
from secrethub.storage.lease_renewals import Renewals
from secrethub.storage.ledger import Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class InitResult:
    """What init gives out, once: the shares and the root token."""

    keys: tuple[bytes, ...] = field(repr=False)
    root_token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SealStatus:
    """The seal as SealState sees it.

    Attributes:
        initialised: whether a cluster exists.
        sealed: whether keys are missing.
        threshold: shares needed (0 before init).
        shares: shares that exist.
        progress: shares given so far in this attempt.
        nonce: of this attempt, empty when none is under way.
        rolled_back: ``older`` or ``forked`` while the database is one that was put back, else empty.
        kind: what opens it: ``shamir``, or the kind of a key service while there are no unseal shares.
        recovery: whether the shares are recovery shares, which open nothing by themselves.
        slots: id and kind of each slot.
    """

    initialised: bool
    sealed: bool
    threshold: int = 0
    shares: int = 0
    progress: int = 0
    nonce: str = ""
    cluster_id: str = ""
    cluster_name: str = ""
    rolled_back: str = ""
    kind: str = "shamir"
    recovery: bool = False
    slots: tuple[tuple[str, str], ...] = ()


class SealPort(Protocol):
    """The seal, reached over actor handles. A serving process never sees the root key."""

    @property
    def ceremonies(self) -> CeremonyPort:
        """What enough shares carry out."""
        ...

    async def initialise(
        self, shares: int, threshold: int, origin: Origin | None = None, service: str | None = None
    ) -> InitResult:
        """Make the cluster; with a ``service`` a key service opens it. Raises Conflict when there is one."""
        ...

    async def submit_share(self, share: bytes, origin: Origin | None = None) -> None:
        """Give one unseal share. Raises WrongShare."""
        ...

    async def accept_restore(self, share: bytes, origin: Origin | None = None) -> None:
        """Give one share to accept that the database was put back. Raises WrongShare, Conflict."""
        ...

    async def reset(self, origin: Origin | None = None) -> None:
        """Forget the shares given so far."""
        ...

    async def refuse(self, operation: str, reason: str, origin: Origin) -> None:
        """Write down what was refused before it got here."""
        ...

    async def status(self) -> SealStatus:
        """Return the seal's state."""
        ...

    async def seal(self, origin: Origin | None = None) -> list[str]:
        """Seal the cluster; return the key-holders that did not say that they have dropped their keys."""
        ...

    async def keyring(self, cluster_id: str, node: str, epoch: int) -> Keyring:
        """Return the keyring from this node's key-holder. Raises Sealed, Stale, Unavailable."""
        ...

    async def rotate(self, after: int, origin: Origin | None = None) -> int:
        """Have a data key added after the one numbered ``after``; return the newest one's number."""
        ...


class Keys:
    """This process's keyring and the seal epoch it belongs to."""

    def __init__(self) -> None:
        self._keyring: Keyring | None = None
        self.epoch = 0
        self.cluster_id = ""
        self._wiped: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"Keys(epoch={self.epoch}, held={self._keyring is not None})"

    @property
    def held(self) -> bool:
        """Whether a keyring is here, for whatever epoch."""
        return self._keyring is not None

    def install(self, keyring: Keyring, epoch: int, cluster_id: str) -> None:
        """Take over the keyring of a seal epoch."""
        if self._keyring is not None and self._keyring is not keyring:
            self._keyring.wipe()
        self._keyring, self.epoch, self.cluster_id = keyring, epoch, cluster_id

    def on_wipe(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the keys go."""
        self._wiped.append(callback)

    def wipe(self) -> None:
        """Let go of the keyring."""
        if self._keyring is not None:
            self._keyring.wipe()
            self._keyring = None
        for callback in self._wiped:
            callback()

    def get(self) -> Keyring | None:
        """Return the keyring, or None."""
        return self._keyring


class Core:
    """One serving process."""

    def __init__(
        self,
        *,
        settings: NodeSettings,
        clock: Clock,
        seal: SealPort,
        engines: dict[str, Engine],
        process: str,
    ) -> None:
        """Wire a process; nothing is opened before :meth:`start`.

        Args:
            settings: this node's.
            clock: the time.
            seal: the way to SealState.
            engines: engine kinds by name.
            process: what this process is, for the ledger.
        """
        self.settings = settings
        self.clock = clock
        self.seal = seal
        self.keys = Keys()
        self.opened = asyncio.Event()
        """Set while the keyring is here."""
        self.keys_due = asyncio.Event()
        """Set when the keyring may be had: it is asked for at once (``operations/key_sync.py``)."""
        self.seal_status: SealStatus | None = None
        """The seal as last seen; None until the database has answered once."""
        self.unrecorded: list[dict[str, Any]] = []
        """Rows that were changed and that the ledger does not know of yet (``engines/own_changes.py``)."""
        self.engine_state: dict[str, object] = {}
        """What an engine keeps for this process, by its kind."""
        self.throttle_anonymous = Throttle(rate=200, burst=2000, address_rate=20, address_burst=400)
        """Refusals of requests without an identity."""
        self.throttle_public = Throttle(rate=200, burst=10_000, address_rate=10, address_burst=5000)
        """Requests that need no token; logins that succeed do not count."""
        self.throttle_logins = Throttle(rate=10_000, burst=100_000, address_rate=50, address_burst=2500)
        """The same by whom they claim to be: role, user or certificate."""
        self.metrics = Metrics()
        self.caches = Caches()
        self.database = Database(settings.database_url, size=settings.database_pool)
        self.ledger = Ledger(
            self.database, self.caches, node=settings.node, process=process, key=self._signing_key
        )
        self.feed = Feed(self.database, self.caches, self.ledger)
        self.authority = Authority(self.database, self.caches, self.keyring, self.feed.notify)
        self.mounts = MountTable(self.authority, self.caches, engines)
        self.policies = PolicyCache(self.authority, self.caches)
        self.bindings = BindingTable(self.authority, self.caches)
        self.role_ids = WholeTable(self.authority, self.caches, ROLE_IDS)
        self.approles = WholeTable(self.authority, self.caches, APPROLES)
        """Whole, so that a login with an unknown RoleID takes as long as one with a known one."""
        self.quotas = QuotaTable(self.authority, self.caches)
        self.exchange = Exchange()
        self.makings = Makings(self.database)
        self.lookups = Lookups(self.database)
        self.renewals = Renewals(self.database)
        self.memo = DecisionMemo(self.caches)
        self.data_keys = DataKeys(self.database, self.caches, clock, self.keyring, self._fetch_keyring)
        self.keys.on_wipe(self.authority.drop)
        self.keys.on_wipe(self.mounts.drop)
        self.keys.on_wipe(self.policies.drop)
        self.keys.on_wipe(self.bindings.drop)
        self.keys.on_wipe(self.role_ids.drop)
        self.keys.on_wipe(self.approles.drop)
        self.keys.on_wipe(self.quotas.drop)
        self.keys.on_wipe(self.memo.drop)
        self.caches.subscribe(self._announced)

    def __repr__(self) -> str:
        return f"Core(node={self.settings.node!r}, unsealed={self.unsealed})"

    @property
    def unsealed(self) -> bool:
        """Whether this process can answer: it holds the keyring of the present seal epoch."""
        return self.keys.held and not self.caches.sealed and self.keys.epoch == self.caches.seal_epoch

    def keyring(self) -> Keyring:
        """Return the keyring of the present seal epoch.

        Raises:
            Sealed: it is not here, or the cluster was sealed since it came.
        """
        keyring = self.keys.get()
        if keyring is None or self.caches.sealed or self.keys.epoch != self.caches.seal_epoch:
            raise self.sealed()
        return keyring

    async def catch_up(self, why: Stale | None = None) -> None:
        """Learn the present state of the database, and of the data key that something failed for.

        Raises:
            Sealed: the keys went away.
            Unavailable: the database or this node's key-holder does not answer.
        """
        await self.ledger.look()
        if isinstance(why, UnknownKey):
            await self.data_keys.learn_of(why.number)

    async def _fetch_keyring(self) -> Keyring:
        return await self.seal.keyring(self.keys.cluster_id, self.settings.node, self.keys.epoch)

    def sealed(self) -> Sealed:
        """Return the error of whoever needs keys that are not here: it says why they are not."""
        status = self.seal_status
        return PutBack() if status is not None and status.rolled_back else Sealed()

    def _signing_key(self) -> bytes | None:
        keyring = self.keys.get()
        return None if keyring is None else keyring.derived("audit-sign")

    def _announced(self, change: Changed) -> None:
        if change.kind == "seal" and self.keys.held and change.version > self.keys.epoch:
            self.lock()

    def lock(self) -> None:
        """Let go of the keys and of everything that they opened."""
        self.keys.wipe()
        self.opened.clear()
        self.metrics.unsealed.set(0)

    async def unseal(self, keyring: Keyring, epoch: int, cluster_id: str) -> None:
        """Take over the keyring and learn the present state of all authority rows.

        Raises:
            Unavailable: the database does not answer.
            IntegrityFailure: the authority rows are not authentic.
        """
        try:
            await self.data_keys.count(keyring)
            self.keys.install(keyring, epoch, cluster_id)
            await self.ledger.look()
            if self.unsealed:
                await self.authority.load_floors()
                await self.mounts.load()
        except BaseException:
            keyring.wipe()
            self.lock()
            raise
        if self.unsealed:
            self.opened.set()
            self.metrics.unsealed.set(1)

    def start(self) -> None:
        """Begin to write the ledger and to listen for changes."""
        self.ledger.start()
        self.feed.start()

    async def stop(self) -> None:
        """Close the ledger's stream and every connection."""
        await self.ledger.stop()
        await self.feed.stop()
        await self.database.close()
        self.lock()
