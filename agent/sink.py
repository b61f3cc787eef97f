"""Putting a rendered file where it belongs, without being led astray by whoever owns the folder.

The agent is usually root and writes into folders of others. So: no symlink anywhere on the way, no
folder that somebody else could tamper with, nothing but a regular file is replaced, and a file that
already says the same is left alone. :mod:`agent.files` has the mechanics.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from agent import files
from agent.files import Attributes
from agent.settings import TemplateSettings
from secrethub.errors import Misconfigured, TooLarge, Unavailable


class Written(Enum):
    """What a delivery did to a file."""

    UNCHANGED = "unchanged"
    ATTRIBUTES = "attributes"
    """Same content; owner or mode were put right."""
    CONTENT = "content"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sink:
    """One destination.

    Attributes:
        settings: where, whose, which mode.
    """

    settings: TemplateSettings

    def put(self, content: bytes, about_to_change: Callable[[], None]) -> Written:
        """Make the destination hold ``content``, owned and protected as set. Blocks on the disk.

        Args:
            content: all of it.
            about_to_change: called before other content is replaced.

        Raises:
            NotFound: the folder does not exist.
            Misconfigured: the folder or what lies there is not safe to write to.
            Unavailable: the kernel refused (no space, no right).
        """
        settings = self.settings
        folder, name = files.split(settings.destination)
        wanted = self._attributes()
        with files.directory(folder) as at:
            self._check_folder(os.fstat(at), wanted)
            try:
                files.sweep(at, name, wanted.uid)
                return self._put(at, name, content, wanted, about_to_change)
            except (Misconfigured, TooLarge) as exc:
                raise Misconfigured(f"{folder}: {exc}") from exc
            except OSError as exc:
                raise Unavailable(f"{settings.destination}: {exc.strerror}") from exc

    def _put(
        self, at: int, name: str, content: bytes, wanted: Attributes, about_to_change: Callable[[], None]
    ) -> Written:
        present = files.read(at, name)
        if present is not None and present.content == content:
            if present.attributes == wanted:
                return Written.UNCHANGED
            files.write(at, name, content, wanted)
            return Written.ATTRIBUTES
        if present is not None and self.settings.backup and not present.alone:
            raise Misconfigured(f"{name} has another name (hard link): it may be somebody else's to keep")
        about_to_change()
        if present is not None and self.settings.backup:
            kept = f"{name}.bak"
            files.read(at, kept)  # refuses what is no regular file
            files.write(at, kept, present.content, wanted)
        files.write(at, name, content, wanted)
        return Written.CONTENT

    def _attributes(self) -> Attributes:
        own = files.own_attributes(self.settings.mode)
        return Attributes(
            uid=own.uid if self.settings.uid is None else self.settings.uid,
            gid=own.gid if self.settings.gid is None else self.settings.gid,
            mode=self.settings.mode,
        )

    def _check_folder(self, folder: os.stat_result, wanted: Attributes) -> None:
        path = self.settings.destination.parent
        if folder.st_uid not in {0, os.geteuid(), wanted.uid}:
            raise Misconfigured(f"{path} belongs to uid {folder.st_uid}, neither root nor the file's owner")
        if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
            raise Misconfigured(f"{path} can be written by everybody")
