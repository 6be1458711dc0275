"""The ends of an archive are found without reading what is between them."""

from types import SimpleNamespace
from typing import Any

import pytest
from stores import new_store

from plugins.archive import Archive
from plugins.archive.ids import DAY, Pool, month_of
from plugins.archive.reading import Reader
from xmppd.store.table import Tuples

pytestmark = pytest.mark.asyncio

OWNER = 7
MESSAGES = 60


class Counted:
    """A table that counts how many rows were read from it."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.rows = 0

    async def scan_columns(self, *partition: Any, **about: Any) -> Tuples:
        found: Tuples = await self._table.scan_columns(*partition, **about)
        self.rows += len(found.rows)
        return found


async def test_the_ends_are_two_rows_of_however_many() -> None:
    store = new_store()
    server: Any = SimpleNamespace(store=store)
    log, days, months = (
        getattr(Archive, name).bind("archive", name, server) for name in ("messages", "days", "months")
    )
    await store.open([table.declaration for table in (log, days, months)])
    try:
        ids = [pool.new_id((20_000 + 2 * place) * DAY) for pool in [Pool()] for place in range(MESSAGES)]
        for id in ids:
            row = {"owner": OWNER, "month": month_of(id), "id": id, "peer": "bob@localhost", "stanza": b"x"}
            await log.put(row)
            await months.put({"owner": OWNER, "month": month_of(id)})
        counted: Any = Counted(log)
        found = await Reader(counted, days, months, OWNER).ends(0, b"")
        assert found == (ids[0], ids[-1])
        assert counted.rows == 2
    finally:
        await store.close()
