"""What is done about a person, as commands of operators want it, on the parts of one server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from xmppd.admin.commands import Caller, Download
from xmppd.admin.rights import ZIP
from xmppd.errors import JidError
from xmppd.jid import Jid
from xmppd.rights.erasing import Erasing
from xmppd.rights.exporting import Exporting
from xmppd.rights.persons import Persons
from xmppd.rights.renaming import Renaming

if TYPE_CHECKING:
    from xmppd.app import App
    from xmppd.config import Config

WAIT_SECONDS: Final[Mapping[str, float]] = {"http": 15.0, "adhoc": 15.0, "socket": 240.0}
"""How long callers wait by these doors for the end of what goes on without them."""


class RightsOffice:
    """Export, erasure; and what goes on with what was begun."""

    def __init__(self, app: App) -> None:
        self._accounts = app.accounts
        self._now = app.now
        self._everywhere = app.everywhere
        app.everywhere.serve("account leaving", self._still_here)
        app.accounts.on_leaving.insert(0, self._still)
        self._persons = Persons(app.store, app.tables)
        self._erasing = Erasing(
            app.store,
            app.accounts,
            self._persons,
            app.contacts,
            app.blocking,
            app.cache,
            app.doors.audit,
            app.duties,
            app.jobs.spawn,
            app.now,
            app.clock,
        )
        self._renaming = Renaming(app, self._persons)
        app.doors.audit.mask = self._mask
        app.service.looks.append(self.look)
        self.apply(app.config)

    def apply(self, config: Config) -> None:
        """Another configuration."""
        self._accounts.erased.days = config.rights.erased_days
        self._renaming.days = config.rights.moved_days

    def look(self) -> None:
        """Called about once a second."""
        self._erasing.look()
        self._renaming.look()

    async def _still(self, account: str) -> None:
        """It is being removed: wait for those who write for it on other nodes."""
        await self._everywhere.others("account leaving", {"account": account})

    async def _still_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        await self._accounts.still(arguments["account"])
        return []

    async def export(self, account: str) -> Download:
        """All that is kept of a person; AccountUnknown."""
        await self._accounts.info(account)
        day = datetime.fromtimestamp(self._now(), UTC).date()
        pieces = Exporting(self._persons, self._now).pieces(account)
        return Download(f"{account}-{day}.zip", ZIP, pieces)

    async def erase(self, account: str, by: Caller) -> Mapping[str, Any]:
        """Erase an account; AccountUnknown."""
        who = f"{by.door} {by.name}".strip()
        return await self._erasing.erase(account, who, WAIT_SECONDS.get(by.door))

    async def receipt(self, account: str) -> Mapping[str, Any]:
        """What became of that; AccountUnknown."""
        return await self._erasing.receipt(account)

    async def rename(self, old: str, new: str, by: Caller, *, is_undone: bool) -> Mapping[str, Any]:
        """Give an account another address, or its old one back; AccountUnknown, CommandError."""
        who, seconds = f"{by.door} {by.name}".strip(), WAIT_SECONDS.get(by.door)
        do = self._renaming.undo if is_undone else self._renaming.rename
        return await do(old, new, who, seconds)

    async def renamed(self) -> Sequence[Mapping[str, Any]]:
        """Those that have another address."""
        return await self._renaming.every()

    def _mask(self, text: str) -> str:
        try:
            return self._accounts.erased.mask(Jid.parse(text).bare)
        except JidError:
            return "********"
