"""What a connection's headers said is used for the same headers alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secrethub.operations.call import Call, Token
from secrethub.sensitive import Sensitive
from serve.said import Said

_PART = st.binary(max_size=6).filter(lambda part: b"\n" not in part)
_HEADERS = st.lists(st.tuples(_PART, _PART), max_size=4)
_CALL = Call(
    method="read",
    path="",
    credential=Token(secret=Sensitive("hvs.canary")),
    client_address=None,
    door="http",
    request_id="",
)


@given(kept=_HEADERS, given_then=_HEADERS)
def test_only_the_same_headers_say_the_same(
    kept: list[tuple[bytes, bytes]], given_then: list[tuple[bytes, bytes]]
) -> None:
    """The call comes back for these headers in this order, whatever others look like, and for no others."""
    said = Said()
    assert said.again(kept) is None
    said.keep(kept, _CALL)
    assert said.again(list(kept)) is _CALL
    assert said.again(given_then) is (_CALL if given_then == kept else None)


def test_it_hides_itself() -> None:
    """A token is among them and is not shown."""
    said = Said()
    said.keep([(b"x-vault-token", b"hvs.canary")], _CALL)
    assert "canary" not in repr(said) + repr(_CALL) + repr(_CALL.credential)
