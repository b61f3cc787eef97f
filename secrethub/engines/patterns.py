"""Path patterns of declared operations (:class:`secrethub.engines.engine.Operation`)."""

from __future__ import annotations

import re


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn an operation's path pattern into a regular expression over the canonical path.

    Raises:
        ValueError: ``pattern`` uses an unknown form.
    """
    out = []
    for piece in re.split(r"(\{[a-z_]+[*?]?\})", pattern):
        match = re.fullmatch(r"\{([a-z_]+)([*?]?)\}", piece)
        if match is None:
            if "{" in piece or "}" in piece:
                raise ValueError(f"bad pattern {pattern!r}")
            out.append(re.escape(piece))
        elif match[2] == "*":
            out.append(f"(?P<{match[1]}>.+)")
        elif match[2] == "?":
            out.append(f"(?P<{match[1]}>.*)")
        else:
            out.append(f"(?P<{match[1]}>[^/]+)")
    return re.compile("".join(out))
