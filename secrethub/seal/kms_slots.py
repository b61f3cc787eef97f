"""Making and opening slots whose secret a key service wraps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from secrethub.crypto.digests import equal
from secrethub.crypto.hybrid import HybridKey
from secrethub.errors import DecryptionFailed, SecretHubError, Unavailable
from secrethub.ids import new_uuid
from secrethub.seal.key_services import KeyServices
from secrethub.seal.slots import KEY_BYTES, KmsKind, KmsSlot

_SECONDS = 15.0
"""How long a key service is waited for, whatever its client does."""


async def make_kms_slot(services: KeyServices, cluster_id: str, kind: KmsKind, service: str) -> KmsSlot:
    """Make a slot, after showing that the service gives back what it is given; nothing is sealed to it yet.

    Raises:
        Misconfigured: this node's settings have no such key.
        Unavailable: the service cannot be reached, refuses, or does not give the secret back.
    """
    secret, slot_id = os.urandom(KEY_BYTES), new_uuid()
    async with _asking(service):
        wrapped = await services.get(service, kind).wrap(secret, cluster_id, slot_id)
    slot = KmsSlot(
        slot_id=slot_id,
        cluster_id=cluster_id,
        kind=kind,
        service=service,
        wrapped_secret=wrapped,
        public=HybridKey(secret).public,
        wrapped_root=b"",
    )
    await kms_secret(services, slot)
    return slot


async def kms_secret(services: KeyServices, slot: KmsSlot) -> bytes:
    """Return the slot's secret, after showing that it is the slot's.

    Raises:
        DecryptionFailed: the service's key, or the slot's row, is not the one that the slot was made with.
        Misconfigured: this node's settings have no such key.
        Unavailable: the service cannot be reached, or refuses.
    """
    async with _asking(slot.service):
        key = services.get(slot.service, slot.kind)
        secret = await key.unwrap(slot.wrapped_secret, slot.cluster_id, slot.slot_id)
    if len(secret) != KEY_BYTES or not equal(HybridKey(secret).public, slot.public):
        raise DecryptionFailed(f"key service {slot.service} gave something else than the slot's secret")
    return secret


@asynccontextmanager
async def _asking(service: str) -> AsyncIterator[None]:
    """Wait for a key service, and no longer than it may take.

    Raises:
        Unavailable: it takes longer, or something else answers in its place.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            yield
    except SecretHubError:
        raise
    except TimeoutError as exc:
        raise Unavailable(f"key service {service} does not answer") from exc
    except Exception as exc:
        # A proxy's page instead of an answer, say: each library fails in ways of its own when it reads that.
        raise Unavailable(f"key service {service} gives no answer that can be read") from exc
