"""The whole server killed before each commit of what changes the seal: shares open, nothing is lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from secrethub.seal.wishes import decode_token
from tests.clouds import pocket
from tests.conftest import TEMPLATE
from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import node_settings
from tests.gateway.key_steps import term
from tests.gateway.killing import SHARES, STEP, call, given, last_words, restarted, sweep
from tests.gateway.whole_server import Server, mortal

RECOVERY = {"service": "pocket", "recovery_shares": 3, "recovery_threshold": 3}


@pytest.fixture
async def fresh(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server without a cluster, whose settings have a key of a key service."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url),
        key_services=(pocket.SETTINGS,),
        key_service_opener=pocket.OPENER,
    )
    async with mortal(settings) as started:
        yield started


@pytest.fixture
async def server(fresh: Server) -> Server:
    """A server that three shares open."""
    await fresh.initialise(3, 3)
    await fresh.unseal()
    return fresh


@pytest.fixture
async def opened(fresh: Server) -> Server:
    """A server that the key service opens, with three recovery shares that decide."""
    made = await call(fresh, "PUT", "sys/init", RECOVERY, "")
    fresh.root, fresh.shares = made["root_token"], made["recovery_keys_base64"]
    await until(lambda: healthy(fresh))
    return fresh


async def slots(server: Server) -> int:
    """Count the slots."""
    return int((await sql(server.settings.database_url, "SELECT count(*) AS n FROM seal_slots"))[0]["n"])


async def left_or_dead(server: Server, number: int) -> bool:
    """Tell whether so many slots are left, or the server is gone."""
    return not server.alive or await slots(server) == number


async def decided(server: Server) -> None:
    """Have the shares decide something: they make a root token, which ends at once."""
    begun = await call(server, "PUT", "sys/generate-root/attempt", {}, "")
    share = await given(server, "sys/generate-root/update", begun["nonce"], server.shares)
    done = await call(server, "PUT", "sys/generate-root/update", share, "")
    token = decode_token(done["encoded_token"], begun["otp"])
    await call(server, "POST", "auth/token/revoke-self", token=token)


async def decides(server: Server, share: str) -> bool:
    """Tell whether a share is of a set that may decide."""
    begun = await call(server, "PUT", "sys/generate-root/attempt", {}, "")
    body = {"key": share, "nonce": begun["nonce"]}
    answer = await server.call("PUT", "sys/generate-root/update", "", json=body)
    await call(server, "DELETE", "sys/generate-root/attempt", token="")
    return answer.status_code == 200


async def adding(server: Server) -> dict[str, str]:
    """Begin to add a slot of the key service; return what gives the last share."""
    begun = await call(server, "POST", "sys/seal/slots", {"type": "gcpckms", "service": "pocket"})
    return await given(server, "sys/seal/slots/update", begun["data"]["nonce"], server.shares)


async def removing(server: Server) -> dict[str, str]:
    """Begin to remove the slot of the key service; return what gives the last share."""
    found = (await call(server, "GET", "sys/seal/slots"))["data"]["key_info"]
    [slot] = [name for name, shown in found.items() if shown["type"] == "gcpckms"]
    begun = await call(server, "DELETE", f"sys/seal/slots/{slot}")
    return await given(server, "sys/seal/slots/update", begun["data"]["nonce"], server.shares)


async def healthy(server: Server) -> bool:
    """Tell whether the server serves."""
    return (await server.call("GET", "sys/health")).status_code == 200


async def untold(server: Server) -> int:
    """Changes of the seal less what was written down before any of them; it never grows.

    Each seal and unseal has an epoch, each new root key and data key a revision of the keyring.
    """
    [row] = await sql(
        server.settings.database_url,
        """SELECT seal_epoch + keyring_revision - (
               SELECT count(*) FROM audit_entries WHERE kind = 'event' AND outcome = 'intent'
                   AND operation LIKE 'sys.%' AND operation <> 'sys.generate-root') AS n FROM cluster""",
    )
    return int(row["n"])


async def swept(server: Server, attempt: Callable[[int], Awaitable[bool]], *, least: int) -> None:
    """Sweep over the ends of an attempt; see that nothing was done to the seal that was not told before."""

    async def told(number: int) -> bool:
        before = await untold(server)
        finished = await attempt(number)
        assert await untold(server) <= before
        return finished

    await sweep(server, told, least=least)


@pytest.mark.parametrize("service", [False, True], ids=["shares", "key service"])
async def test_init(fresh: Server, database_url: str, postgres_url: str, *, service: bool) -> None:
    """There is a whole cluster or none, which can be made then; what was handed over opens and decides."""
    asked = RECOVERY if service else SHARES
    tables = ("cluster", "seal_slots", "mounts", "policies", "tokens", "certificate_authorities")
    counted = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)

    async def emptied() -> None:
        """Give the server an empty database."""
        name = urlsplit(database_url).path[1:]
        await sql(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')
        await sql(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE}')

    async def made_at(number: int) -> bool:
        """Make the cluster; the server dies before that commit. Tell whether it had come to its end."""
        fresh.doom(number)
        made = await last_words(fresh, "PUT", "sys/init", asked, "")
        [there] = await sql(database_url, f"SELECT {counted}")
        assert any(there) is all(there)
        again = await restarted(fresh)
        if not (await call(fresh, "GET", "sys/init", token=""))["initialized"]:
            assert (made, await slots(fresh)) == (None, 0)
            made = await call(fresh, "PUT", "sys/init", asked, "")
        if made is not None:
            fresh.root = made["root_token"]
            fresh.shares = made["keys_base64"] or made["recovery_keys_base64"]
            if not service:
                await fresh.unseal()
        if made is not None or service:
            await until(lambda: healthy(fresh))
        if made is not None:
            await decided(fresh)
            await ledger_is_good(fresh, state=True)
        return not again

    for number in itertools.count(random.randint(1, STEP), STEP):
        if await made_at(number):
            assert number > 3
            break
        fresh.kill()
        await fresh.ended()
        await emptied()
        await fresh.start()


async def test_rekey(server: Server) -> None:
    """With verification and without there is one whole set of shares that opens, and that people have."""

    async def rekey(number: int) -> bool:
        """The new shares open if anybody was told them, otherwise the old ones do."""
        begun = await call(server, "PUT", "sys/rekey/init", SHARES)
        share = await given(server, "sys/rekey/update", begun["nonce"], server.shares)
        server.doom(number)
        made = await last_words(server, "PUT", "sys/rekey/update", share, "")
        if made is not None:
            server.shares = made["keys_base64"]
            # It may die of letting the old ones go, too.
            await until(lambda: left_or_dead(server, 1))
        if not await restarted(server):
            return True
        await server.unseal()
        assert made is None or await slots(server) == 1
        return False

    async def verified(number: int) -> bool:
        """The new shares open once their verification was acknowledged; before, one set or the other."""
        begun = await call(server, "PUT", "sys/rekey/init", {**SHARES, "require_verification": True})
        share = await given(server, "sys/rekey/update", begun["nonce"], server.shares)
        made = await call(server, "PUT", "sys/rekey/update", share, "")
        new = made["keys_base64"]
        share = await given(server, "sys/rekey/verify", made["verification_nonce"], new)
        server.doom(number)
        done = await last_words(server, "PUT", "sys/rekey/verify", share, "")
        again = await restarted(server)
        if done is not None:
            server.shares = new
        elif (await server.call("PUT", "sys/unseal", "", json={"key": new[0]})).status_code == 200:
            server.shares = new
            await call(server, "PUT", "sys/unseal", {"reset": True}, "")
        if again:
            await server.unseal()
        return not again

    await swept(server, rekey, least=7)
    await swept(server, verified, least=4)
    server.kill()
    await server.ended()
    await server.start()
    await server.unseal()


async def test_rekey_of_recovery_shares(opened: Server) -> None:
    """The key service opens after each end; one whole set of shares decides, and that people have."""
    path = "sys/rekey-recovery-key"

    async def rekey(number: int) -> bool:
        """The new shares decide if anybody was told them, otherwise the old ones do."""
        begun = await call(opened, "PUT", f"{path}/init", SHARES)
        share = await given(opened, f"{path}/update", begun["nonce"], opened.shares)
        opened.doom(number)
        made = await last_words(opened, "PUT", f"{path}/update", share, "")
        if made is not None:
            opened.shares = made["keys_base64"]
            # It may die of letting the old ones go, too.
            await until(lambda: left_or_dead(opened, 2))
        again = await restarted(opened)
        await until(lambda: healthy(opened))
        if again and made is not None:
            # Whoever has a sealed cluster opened with the new ones has them.
            await call(opened, "PUT", "sys/seal")
            await opened.unseal()
        assert made is None or await slots(opened) == 2
        await decided(opened)
        return not again

    async def verified(number: int) -> bool:
        """The new shares decide once their verification was acknowledged; before, one set or the other."""
        begun = await call(opened, "PUT", f"{path}/init", {**SHARES, "require_verification": True})
        share = await given(opened, f"{path}/update", begun["nonce"], opened.shares)
        made = await call(opened, "PUT", f"{path}/update", share, "")
        new = made["keys_base64"]
        share = await given(opened, f"{path}/verify", made["verification_nonce"], new)
        opened.doom(number)
        done = await last_words(opened, "PUT", f"{path}/verify", share, "")
        again = await restarted(opened)
        await until(lambda: healthy(opened))
        moved = await decides(opened, new[0])
        assert moved is not await decides(opened, opened.shares[0])
        assert moved or done is None
        if moved:
            opened.shares = new
        await decided(opened)
        return not again

    await swept(opened, rekey, least=7)
    await swept(opened, verified, least=4)
    # What was sealed on purpose the service opens for these shares, and for no others.
    await call(opened, "PUT", "sys/seal")
    await opened.unseal()


async def test_slots_and_data_keys(server: Server) -> None:
    """The removal of a slot, and a new data key, happen or do not; what was acknowledged did."""

    async def removed(number: int) -> bool:
        """A slot opens by itself until its removal is committed, and not once that was acknowledged."""
        if await slots(server) == 1:
            await call(server, "PUT", "sys/seal/slots/update", await adding(server), "")
        share = await removing(server)
        server.doom(number)
        done = await last_words(server, "PUT", "sys/seal/slots/update", share, "")
        assert done is None or await slots(server) == 1
        if not await restarted(server):
            return True
        if await slots(server) == 2:
            await until(lambda: healthy(server))
        else:
            assert (await call(server, "GET", "sys/seal-status"))["sealed"] is True
            await server.unseal()
        return False

    async def rotated(number: int) -> bool:
        """A data key is there or not; one that was acknowledged is."""
        before = await term(server)
        server.doom(number)
        done = await last_words(server, "PUT", "sys/rotate")
        if await restarted(server):
            await server.unseal()
        assert await term(server) in ({before, before + 1} if done is None else {before + 1})
        return done is not None

    await swept(server, removed, least=4)
    await swept(server, rotated, least=4)


async def test_slots_that_are_added_and_seals(server: Server) -> None:
    """A slot that was acknowledged opens; what was sealed on purpose no key service opens."""
    url = server.settings.database_url

    async def added(number: int) -> bool:
        """A slot opens by itself once its adding was acknowledged, and at no time before its commit."""
        if await slots(server) == 2:
            await call(server, "PUT", "sys/seal/slots/update", await removing(server), "")
        share = await adding(server)
        server.doom(number)
        done = await last_words(server, "PUT", "sys/seal/slots/update", share, "")
        assert done is None or await slots(server) == 2
        if not await restarted(server):
            return True
        if await slots(server) == 2:
            await until(lambda: healthy(server))
        else:
            await server.unseal()
        return False

    async def sealed(number: int) -> bool:
        """A seal is committed or not: only then a key service opens after the end, and it is never undone."""
        server.doom(number)
        done = await last_words(server, "PUT", "sys/seal")
        again = await restarted(server)
        [row] = await sql(url, "SELECT sealed FROM cluster")
        assert row["sealed"] or done is None
        if row["sealed"]:
            await server.unseal()
        else:
            await until(lambda: healthy(server))
        [last] = await sql(
            url,
            """SELECT operation FROM audit_entries WHERE operation IN ('sys.unseal', 'sys.auto-unseal')
               AND kind = 'event' AND outcome = 'done' ORDER BY at DESC LIMIT 1""",
        )
        assert last["operation"] == ("sys.unseal" if row["sealed"] else "sys.auto-unseal")
        return not again

    await swept(server, added, least=4)
    await swept(server, sealed, least=4)


async def test_root_tokens(server: Server) -> None:
    """A root token is there or not, with its entries; one that was handed over is good."""

    async def number_of(rows: str) -> int:
        return int((await sql(server.settings.database_url, f"SELECT count(*) AS n FROM {rows}"))[0]["n"])

    async def root_tokens() -> int:
        return await number_of("tokens WHERE body->>'display_name' = 'root'")

    async def intents() -> int:
        return await number_of("audit_entries WHERE operation = 'sys.generate-root' AND outcome = 'intent'")

    async def made(number: int) -> bool:
        before, told = await root_tokens(), await intents()
        begun = await call(server, "PUT", "sys/generate-root/attempt", {}, "")
        share = await given(server, "sys/generate-root/update", begun["nonce"], server.shares)
        server.doom(number)
        done = await last_words(server, "PUT", "sys/generate-root/update", share, "")
        again = await restarted(server)
        if again:
            await server.unseal()
        more = await root_tokens() - before
        assert more in ({0, 1} if done is None else {1})
        assert more <= await intents() - told
        if done is not None:
            token = decode_token(done["encoded_token"], begun["otp"])
            await call(server, "GET", "auth/token/lookup-self", token=token)
            await call(server, "POST", "auth/token/revoke-self", token=token)
        return not again

    await swept(server, made, least=4)
