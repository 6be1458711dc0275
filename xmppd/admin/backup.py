"""The commands that make a file of a whole store, and compare two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

from xmppd.admin.commands import Description, Download, Parameter, command

SQLITE: Final = "application/vnd.sqlite3"


class Backups(Protocol):
    """What these commands need."""

    async def backup(self) -> Download:
        """The whole store as it is now; CommandError where the engine has a way of its own."""

    async def digest(self, after: str) -> Mapping[str, Any]:
        """A page: a row for each table that is done. CommandError for a token that is none."""


class BackupCommands:
    """`store backup` and `store digest`, whether or not a server runs."""

    def __init__(self, backups: Backups) -> None:
        self.backups = backups

    @command(
        "Give the whole store as it is now, as a file, while the server goes on",
        name="store backup",
        offline=True,
        reads=True,
        guarded=True,
        downloads=SQLITE,
    )
    async def backup(self) -> Download:
        """Of SQLite, looked through for damage before it is given."""
        return await self.backups.backup()

    @command(
        "Count and sum up all that each table holds, to compare a restored store with what it was",
        name="store digest",
        offline=True,
        reads=True,
        paged=True,
    )
    async def digest(
        self, *, after: Annotated[str, "go on where a run was interrupted: the token that it named"] = ""
    ) -> dict[str, Any]:
        """One row for each table; alike on both engines, whatever the order."""
        return dict(await self.backups.digest(after))


RESTORE: Final = Description(
    "store restore",
    "Put a backup in place of the database, which is kept beside it; the server must not run",
    (Parameter("file", "str", "what `store backup` gave"),),
    confirm="Put {file} in place of the database?",
)
