"""Access keys of a user of IAM, replaced with the key of an AWS mount.

The new key is good beside the old one until everybody has said that he uses it. AWS makes the key's secret
itself and tells it once: if the answer is lost that key is removed, and another one made. A user has two keys
at most, so there must be no second one before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.engines.aws.account import Account, accounts_of
from secrethub.engines.aws.account import Refused as AwsRefused
from secrethub.engines.aws.root import Root, used_root
from secrethub.engines.rotators.rotator import Plan, Refused, Setup
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.sensitive import Sensitive

_CONFIG = "/config/root"
_USER = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_UNKNOWN = frozenset({"InvalidClientTokenId", "UnrecognizedClientException"})


class AwsKeyRotator:
    """Kind ``aws-access-key``."""

    kind = "aws-access-key"
    options = frozenset({"root", "user", "access_key_field", "secret_key_field"})
    secrets: frozenset[str] = frozenset()

    def check(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> None:  # noqa: ARG002
        """Check that there is a mount's key, a user, and two names of fields."""
        self.needs(options)
        names = _fields(options)
        if names[0] == names[1] or not all(0 < len(name) <= 128 and name.isprintable() for name in names):
            raise InvalidRequest(
                "access_key_field and secret_key_field are names of two fields of the secret"
            )
        if _USER.fullmatch(options.get("user", "")) is None:
            raise InvalidRequest("user is the name of a user of IAM")

    def needs(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """Who we are at AWS: whoever may change that has its power."""
        path = options.get("root", "").strip("/")
        if not path.removesuffix(_CONFIG) or not path.endswith(_CONFIG):
            raise InvalidRequest("root is the path of an AWS mount's key, as secrets/dynamic/aws/config/root")
        return (path,)

    async def probe(self, setup: Setup, current: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Find out whether there is a place for another key."""
        await self._room(setup)

    async def plan(
        self,
        setup: Setup,
        current: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Note which key there is; what the new one will be only AWS knows."""
        before = await self._room(setup)
        return dict.fromkeys(_fields(setup.options), ""), {"before": ",".join(before)}

    async def create(self, setup: Setup, plan: Plan) -> Mapping[str, Any]:
        """Have a key made, in place of one whose secret was lost on its way."""
        await self._remove_new(setup, plan)
        made = (await _asked(setup, "create_access_key"))["AccessKey"]
        return dict(zip(_fields(setup.options), (made["AccessKeyId"], made["SecretAccessKey"]), strict=True))

    async def verify(self, setup: Setup, plan: Plan) -> None:
        """Use the key; AWS may need some seconds to know it everywhere."""
        access_key, secret_key = (str(plan.fields[name]) for name in _fields(setup.options))
        mount, root = await _root(setup)
        root = msgspec.structs.replace(root, access_key=access_key)
        account = accounts_of(setup.core).with_key(mount, root, Sensitive(secret_key))
        try:
            await account.call("sts", "get_caller_identity")
        except AwsRefused as exc:
            if exc.aws_code in _UNKNOWN:
                raise Unavailable("AWS does not know the new key yet") from exc
            raise Refused(exc.message) from exc

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """Remove the old key."""
        await _remove(setup, _before(plan))

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Remove the new key; the old one was good all the time."""
        await self._remove_new(setup, plan)

    async def _remove_new(self, setup: Setup, plan: Plan) -> None:
        await _remove(setup, await _keys(setup) - _before(plan))

    async def _room(self, setup: Setup) -> list[str]:
        """Return the keys that there are.

        Raises:
            Refused: there is no place for another one.
        """
        found = sorted(await _keys(setup))
        _, root = await _root(setup)
        if root.access_key in found:
            raise Refused("Core's own key is replaced by rotate-root only")
        if len(found) > 1:
            raise Refused(f"{setup.options['user']} has two access keys, which leaves no place for a new one")
        return found


def _fields(options: Mapping[str, str]) -> tuple[str, str]:
    return options.get("access_key_field", "access_key"), options.get("secret_key_field", "secret_key")


def _before(plan: Plan) -> set[str]:
    return {key for key in plan.notes["before"].split(",") if key}


async def _root(setup: Setup) -> tuple[str, Root]:
    """Return the UUID of the mount whose key is used, and that.

    Raises:
        Refused: there is none.
    """
    mount = await setup.mount_of(setup.options["root"].strip("/"), "aws")
    try:
        return mount.uuid, await used_root(setup.core, mount.uuid)
    except InvalidRequest as exc:
        raise Refused(exc.message) from exc


async def _account(setup: Setup) -> Account:
    mount, root = await _root(setup)
    return accounts_of(setup.core).of(mount, root)


async def _asked(setup: Setup, method: str, **arguments: str) -> dict[str, Any]:
    account = await _account(setup)
    try:
        return await account.call("iam", method, UserName=setup.options["user"], **arguments)
    except AwsRefused as exc:
        raise Refused(exc.message) from exc
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc


async def _keys(setup: Setup) -> set[str]:
    found = await _asked(setup, "list_access_keys")
    return {str(key["AccessKeyId"]) for key in found["AccessKeyMetadata"]}


async def _remove(setup: Setup, keys: set[str]) -> None:
    _, root = await _root(setup)
    for key in sorted(keys & await _keys(setup) - {root.access_key}):
        await _asked(setup, "delete_access_key", AccessKeyId=key)
