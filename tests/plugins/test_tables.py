"""The tables of plugins: what they do by way of the store they are bound to."""

from pathlib import Path

import pytest

from xmppd.testing import World

BOOK = """
from xmppd.plugin import Plugin, Table, nobody

class Book(Plugin):
    '''Keeps what it is told.'''
    lines = Table(
        partition=("owner",), cluster=("id", "peer"), columns={"owner": "int", "id": "int", "text": "text"},
        person=nobody("a test"),
    )
    days = Table(
        partition=("owner",), cluster=("day",), columns={"owner": "int", "day": "int"}, ttl=60.0,
        person=nobody("a test"),
    )
"""


@pytest.mark.asyncio
async def test_rows_of_two_tables_are_written_at_once_and_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "book.py").write_text(BOOK)
    async with World(plugins=("book",), plugin_folders=(tmp_path,)) as world:
        book = world.plugin("book")
        lines, days = book.lines.writer(("owner", "id", "peer", "text")), book.days.writer(("owner", "day"))
        rows = [lines.row(-7, number, "ab"[number % 2], f"text {number}") for number in range(6)]
        await book.lines.write([*rows, days.row(-7, 1)], ttl=30.0)
        assert (await book.days.scan(-7)).rows == [{"owner": -7, "day": 1}]
        page = await book.lines.scan_columns(
            -7, columns=("text",), after=(1,), before=(5,), match={"peer": "a"}
        )
        assert page == ([("text 2",), ("text 4",)], None)
        page = await book.lines.scan_columns(-7, columns=("id", "owner"), reverse=True, limit=2)
        assert page.rows == [(5, -7), (4, -7)]
        found = await book.lines.get_rows(-7, keys=[(4,), (9,), (2,)])
        assert [(row["owner"], row["id"]) for row in found] == [(-7, 2), (-7, 4)]
        found = (await book.lines.scan(-7, after=(3,))).rows
        assert [(row["owner"], row["id"]) for row in found] == [(-7, 4), (-7, 5)]
        assert (await book.lines.get(-7, 1, "b"))["text"] == "text 1"
