"""What is done about a person, as commands of operators want it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from xmppd.admin.commands import Download
from xmppd.core.accounts import Accounts
from xmppd.rights.exporting import Exporting
from xmppd.rights.persons import Persons


class RightsOffice:
    """Exports by what the tables say."""

    def __init__(self, accounts: Accounts, persons: Persons, now: Callable[[], float]) -> None:
        self._accounts = accounts
        self._persons = persons
        self._now = now

    async def export(self, account: str) -> Download:
        """All that is kept of a person; AccountUnknown."""
        await self._accounts.info(account)
        day = datetime.fromtimestamp(self._now(), UTC).date()
        pieces = Exporting(self._persons, self._now).pieces(account)
        return Download(f"{account}-{day}.zip", "application/zip", pieces)
