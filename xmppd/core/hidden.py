"""To whom accounts look as if they were offline, though rosters would let them see more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmppd.core.sessions import LiveAccount

log = logging.getLogger(__name__)

Away = Callable[[str], float | None]
"""Since when an account looks gone to another (seconds since the epoch; 0.0: it was never there), None: it
looks as it is.
"""


Recall = Callable[[str, str], Awaitable[float | None]]
"""The same of any account, with sessions or without, and a viewer."""


class Hidden:
    """As plugins have it: of accounts that have sessions on any node. Those of them that have some here are
    asked who may see them (`LiveAccount.ask`), so that nobody else is.
    """

    __slots__ = ("_away", "_live", "recall")

    def __init__(self, live: Mapping[str, LiveAccount]) -> None:
        self._live = live
        self._away: dict[str, Away] = {}
        self.recall: Recall | None = None

    def __bool__(self) -> bool:
        """Whether any account hides from anybody."""
        return bool(self._away)

    def __contains__(self, account: str) -> bool:
        return account in self._away

    def set(self, account: str, away: Away | None) -> None:
        """From now on an account looks so; None: to nobody."""
        if away is None:
            self._away.pop(account, None)
        else:
            self._away[account] = away
        live = self._live.get(account)
        if live is not None:
            live.ask(is_asked=away is not None)

    def clear(self) -> None:
        """Nobody hides from anybody."""
        for account in [*self._away]:
            self.set(account, None)

    def since(self, account: str, viewer: str) -> float | None:
        """Since when an account that has sessions looks gone to another one."""
        away = self._away.get(account)
        if away is None or viewer == account:
            return None
        try:
            return away(viewer)
        except Exception:  # a plugin may raise anything: who hides stays hidden
            log.exception("hook-failed", extra={"hook": "appear_offline"})
            return 0.0

    def has(self, account: str, viewer: str) -> bool:
        """Whether it looks gone to him."""
        return account in self._away and self.since(account, viewer) is not None

    def among(self, accounts: Iterable[str], viewer: str) -> list[str]:
        """Those accounts that look gone to one."""
        return [account for account in accounts if self.has(account, viewer)] if self._away else []
