"""Tombstones: which accounts were erased, kept without saying their names once the work is done."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from typing import Final

from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table

DAY: Final = 86_400.0
LEAST_DAYS: Final = 7.0
"""How long a tombstone stays at least: it is what the work goes by."""
ERASED: Final = Table(
    "account_erased",
    partition=("digest",),
    columns={
        "account": "text",
        "state": "text",
        "at": "timestamp",
        "by": "text",
        "created": "timestamp",
        "until": "timestamp",
        "round": "int",
        "due": "timestamp",
        "receipt": "text",
    },
    person=Person(mentions={"account": "kept"}),
)
"""`account` is there as long as there is work: until late writes have been looked for last. `state` is begun,
late (erased, and looked for) or done; `round` and `due` say when it is looked next. `until` is when somebody
may have the name.
"""


class Erased:
    """The tombstones of one store. `key` is a secret of the whole server, `days` how long a name is taken."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self.key = b""
        self.days = 0.0
        self._store = store
        self._now = now

    def digest(self, account: str) -> str:
        """What stands for an account: who has the store and not the key cannot try names."""
        return hmac.digest(self.key, b"erased\0" + account.encode(), hashlib.sha256).hex()[:32]

    def mask(self, account: str) -> str:
        """An address that is nobody's, in its place."""
        return f"erased-{self.digest(account)[:16]}@{account.rpartition('@')[2]}"

    async def get(self, account: str) -> Row | None:
        """The tombstone of an account."""
        return await self._store.get(ERASED, (self.digest(account),))

    async def until(self, account: str) -> float | None:
        """Until when nobody may have the name; None: it is free."""
        if not self.days:
            return None
        row = await self.get(account)
        until = None if row is None else float(row["until"])
        return until if until is not None and until > self._now() else None

    async def put(self, row: Row) -> None:
        """Write a whole tombstone."""
        life = max(row["until"], row["at"] + LEAST_DAYS * DAY) - self._now()
        await self._store.put(ERASED, row, ttl=max(1.0, life))

    async def unfinished(self) -> AsyncIterator[Row]:
        """Those on which there is work left."""
        page: bytes | None = None
        while True:
            found = await self._store.scan_all(ERASED, page=page)
            for row in found.rows:
                if row["account"] is not None:
                    yield row
            if (page := found.next) is None:
                return
