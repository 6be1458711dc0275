"""Names given up lately, where several servers share a store: one of them may not have heard yet."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from xmppd.core.credentials import ACCOUNT, identity_of
from xmppd.errors import StoreError
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table

GONE_SECONDS = 10.0
"""How long a name is not given out again where several servers share a store: whoever still writes for the
account that had it, on a server that has not heard of the removal, is done by then.
"""
GONE = Table(
    "account_gone",
    partition=("account",),
    columns={"at": "timestamp"},
    ttl=GONE_SECONDS,
    person=Person("account", stays=True),
)
TAKEN_SECONDS = 600.0
"""How long a name is taken while what was its account's is deleted once more, if this one ends."""
LATE_RETRY_SECONDS = 1.0, 30.0
"""The pause after the first time that the store failed it, and the longest."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Late:
    """An account that was removed some time ago, to be deleted once more when that is `due`. `numbers` are
    those by which its name was taken for that.
    """

    account: str
    due: float
    pause: float = LATE_RETRY_SECONDS[0]
    numbers: deque[int] = field(default_factory=lambda: deque(maxlen=8))


class Gone:
    """The names given up by this server, and whether one is free. `seconds` 0: no other server is there."""

    def __init__(
        self, store: Store, seconds: float, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self.seconds = seconds
        self._store = store
        self._now = now
        self._clock = clock
        self._late: dict[str, Late] = {}

    async def has(self, account: str) -> bool:
        """Whether the name is not free yet."""
        return bool(self.seconds) and await self._store.get(GONE, (account,)) is not None

    async def give_up(self, account: str) -> None:
        """Keep a name for a while, and have its account looked at again later."""
        if self.seconds:
            await self._store.put(GONE, {"account": account, "at": self._now()}, ttl=self.seconds)
            self._late[account] = Late(account, self._clock() + self.seconds / 2)

    def due(self) -> list[Late]:
        """Those that are to be deleted once more now; each is handed out once."""
        now = self._clock()
        due = [late for late in self._late.values() if late.due <= now]
        for late in due:
            del self._late[late.account]
        return due

    def put_off(self, late: Late, error: StoreError) -> None:
        """The store failed one: it is due again later."""
        if late.pause == LATE_RETRY_SECONDS[0]:
            _log.warning("late-removal-put-off", extra={"jid": late.account, "problem": str(error)})
        late.due = self._clock() + late.pause
        late.pause = min(2 * late.pause, LATE_RETRY_SECONDS[1])
        self._late.setdefault(late.account, late)

    async def take_name(self, late: Late) -> int | None:
        """Make a row of the name that is nobody's, for a while; its `changed`, None when there is one."""
        while True:
            found = await self._store.get(ACCOUNT, (late.account,))
            if found is not None and found["changed"] not in late.numbers:
                return None
            number = new_number()
            late.numbers.append(number)  # first: it may be written though that fails
            row: Row = {
                "account": late.account,
                "created": self._now(),
                "leaving": True,
                "changed": number,
            }
            same = None if found is None else identity_of(found)
            if await self._store.put_if(ACCOUNT, row, same, ttl=TAKEN_SECONDS):
                return number


def new_number() -> int:
    """What marks one change of an account: another one each time."""
    return secrets.randbits(62)
