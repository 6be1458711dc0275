"""Heaps of SQLite: rows that lie in the order in which they came."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Table

LOG = Table("log", ("owner",), ("id",), {"owner": "int", "id": "int", "stanza": "blob"}, heap=True)
NOTES = Table("notes", ("owner",), ("number",), {"number": "int"})


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """A store with a heap and another table."""
    made = SqliteStore(path)
    await made.open([LOG, NOTES])
    yield made
    await made.close()


@pytest.mark.asyncio
async def test_rows_of_a_heap_lie_in_the_order_in_which_they_came(store, path):
    writer = store.writer(LOG, ("owner", "id", "stanza"))
    keys = [(owner, number) for number in (3, 1, 2) for owner in (9, 7, 8)]
    for owner, number in keys:
        await store.write([writer.row(owner, number, b"x")])
    await store.write([writer.row(7, 1, b"replaced where it lies")])
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT owner, id FROM log ORDER BY rowid").fetchall() == keys
        with pytest.raises(sqlite3.OperationalError, match="rowid"):
            other.execute("SELECT rowid FROM notes")
    assert [row["id"] for row in (await store.scan(LOG, (7,))).rows] == [1, 2, 3]


@pytest.mark.asyncio
async def test_a_backup_has_heaps_too(store, path, tmp_path):
    writer = store.writer(LOG, ("owner", "id", "stanza"))
    await store.write([writer.row(owner, number, b"x") for number in (2, 1) for owner in (9, 7)])
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
    expected = (await store.scan_all(LOG)).rows
    copy = SqliteStore(tmp_path / "backup.db")
    await copy.open([LOG])
    assert (await copy.scan_all(LOG)).rows == expected
    await copy.write([copy.writer(LOG, ("owner", "id", "stanza")).row(7, 1, b"new")])
    assert (await copy.get(LOG, (7, 1)))["stanza"] == b"new"
    await copy.close()
