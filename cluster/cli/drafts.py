"""Files that appear whole, and have their place before their content exists.

What a server gives out only once (unseal shares, a private key) must not be asked for as long as it is
unknown whether it can be kept. So the file is made first, private and under a temporary name beside its
own; the content follows, and then the name.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import click


class Draft:
    """One file on its way to its name; leaving the ``with`` block without :meth:`keep` removes it."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        """Make the draft.

        Args:
            path: where the file will be; one that is there will be replaced.
            mode: its permissions.

        Raises:
            OSError: the folder is missing or not writable, or something that is
                no file is at ``path``.
        """
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no regular file")
        self.path = path
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        self._draft = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        os.fchmod(descriptor, mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)

    def keep(self, content: bytes) -> None:
        """Give the file its content and its name; it is on disk afterwards.

        Raises:
            OSError: it cannot be written. Nothing is at its name that was not there before.
        """
        with self._file as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._draft.replace(self.path)


def draft(path: Path, mode: int = 0o600) -> Draft:
    """Make a draft, or end the command.

    Raises:
        click.ClickException: the file could not be written later.
    """
    try:
        return Draft(path, mode)
    except OSError as exc:
        raise click.ClickException(f"{path}: {exc.strerror}") from exc


def keep(place: Draft, content: bytes) -> None:
    """Give a draft its content and its name, or end the command.

    Raises:
        click.ClickException: it cannot be written.
    """
    try:
        place.keep(content)
    except OSError as exc:
        raise click.ClickException(f"{place.path}: {exc.strerror}") from exc
