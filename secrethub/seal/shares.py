"""How people write shares: hexadecimal or base64, as Vault prints them at init.

A share is key material: it is never logged, and no message here repeats any of it.
"""

from __future__ import annotations

import base64
import binascii

from secrethub.errors import WrongShare

SHARE_BYTES = 33
"""A share of a 32-byte key: 32 bytes y, one byte x."""
_HEX_LENGTH = 2 * SHARE_BYTES
_BASE64_LENGTH = 4 * SHARE_BYTES // 3


def encode_share(share: bytes) -> tuple[str, str]:
    """Return ``share`` in hexadecimal and in base64."""
    return share.hex(), base64.b64encode(share).decode("ascii")


def decode_share(text: str) -> bytes:
    """Read a share that a person typed or pasted; blanks around it are ignored.

    The two spellings differ in length (66 and 44 characters), so none is taken for the other.

    Raises:
        WrongShare: ``malformed``; neither spelling of 33 bytes.
    """
    written = text.strip()
    share = b""
    try:
        if len(written) == _HEX_LENGTH:
            share = binascii.unhexlify(written)
        elif len(written) == _BASE64_LENGTH:
            share = base64.b64decode(written, validate=True)
    except ValueError:
        pass  # raised below, without the text in the chain of causes
    if len(share) != SHARE_BYTES:
        raise WrongShare("a share is 66 hexadecimal digits or 44 characters of base64", "malformed")
    return share
