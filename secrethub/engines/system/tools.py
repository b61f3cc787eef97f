"""``sys/tools``: random bytes and digests for whoever has no good ones at hand."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re

import msgspec

from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.errors import InvalidRequest

_MOST = 128 * 1024
_DEFAULT = 32
_NUMBER = re.compile(r"[0-9]{1,6}")
_SOURCES = frozenset({"", "platform"})
"""The operating system's generator. Vault has others, which come from hardware that is not here."""
_ALGORITHMS = {
    "sha2-224": hashlib.sha224,
    "sha2-256": hashlib.sha256,
    "sha2-384": hashlib.sha384,
    "sha2-512": hashlib.sha512,
    "sha3-224": hashlib.sha3_224,
    "sha3-256": hashlib.sha3_256,
    "sha3-384": hashlib.sha3_384,
    "sha3-512": hashlib.sha3_512,
}


class RandomRequest(msgspec.Struct, frozen=True):
    """How many ``bytes``, ``format``: ``base64`` or ``hex``."""

    bytes: int | None = None
    format: str = "base64"
    source: str = ""


class HashRequest(Hidden, msgspec.Struct, frozen=True):
    """``input``: base64; ``algorithm``: ``sha2-256`` or another; ``format``: ``hex`` or ``base64``."""

    input: str = ""
    algorithm: str = "sha2-256"
    format: str = "hex"


class RandomAnswer(msgspec.Struct, frozen=True):
    """Random bytes in the form that was asked for."""

    random_bytes: str


class HashAnswer(msgspec.Struct, frozen=True):
    """A digest in the form that was asked for."""

    sum: str


def tool_operations() -> tuple[Operation, ...]:
    """Return the tools, at every path that Vault has for them."""
    return (
        *(
            Operation(
                name="sys.tools.random",
                method="write",
                pattern=pattern,
                handler=random,
                capability="update",
                request=RandomRequest,
                response=RandomAnswer,
                plain=frozenset(RandomRequest.__struct_fields__),
                summary="Give random bytes.",
            )
            for pattern in ("tools/random", "tools/random/{first}", "tools/random/{first}/{bytes}")
        ),
        *(
            Operation(
                name="sys.tools.hash",
                method="write",
                pattern=pattern,
                handler=digest,
                capability="update",
                request=HashRequest,
                response=HashAnswer,
                plain=frozenset({"algorithm", "format"}),
                summary="Give the digest of an input.",
            )
            for pattern in ("tools/hash", "tools/hash/{algorithm}")
        ),
    )


async def random(context: Context, body: RandomRequest) -> Answer:
    """Answer fresh random bytes; they are written down nowhere."""
    first, rest = context.params.get("first"), context.params.get("bytes")
    source = body.source
    if first is not None and rest is None and _NUMBER.fullmatch(first):
        rest = first  # a number where the source may stand
    elif first is not None:
        source = first
    if source not in _SOURCES:
        raise InvalidRequest(f"unsupported entropy source {source!r}: there is platform"[:100])
    if rest is not None and _NUMBER.fullmatch(rest) is None:
        raise InvalidRequest("the number of bytes in the path is no number")
    wanted = int(rest) if rest is not None else _DEFAULT if body.bytes is None else body.bytes
    if not 0 < wanted <= _MOST:
        raise InvalidRequest(f"from 1 to {_MOST} bytes can be asked for")
    return Answer(data={"random_bytes": _formatted(os.urandom(wanted), body.format)})


async def digest(context: Context, body: HashRequest) -> Answer:
    """Answer the digest of an input."""
    name = context.params.get("algorithm", body.algorithm)
    algorithm = _ALGORITHMS.get(name)
    if algorithm is None:
        raise InvalidRequest(f"unsupported algorithm {name!r}"[:100])
    try:
        content = base64.b64decode(body.input, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest("unable to decode input as base64") from exc
    return Answer(data={"sum": _formatted(algorithm(content).digest(), body.format)})


def _formatted(content: bytes, form: str) -> str:
    if form == "hex":
        return content.hex()
    if form == "base64":
        return base64.b64encode(content).decode()
    raise InvalidRequest(f"unsupported encoding format {form!r}; must be hex or base64"[:120])
