"""What a page reads: the month in which it begins, and others only where that is not enough."""

from __future__ import annotations

import random
from typing import Any

import pytest
from archives import ask, find, page, put, world

from plugins.archive.ids import Pool, Stamps, from_text, month_of, stamp_of, texts_of, to_text
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

MONTHS = (400.0, 399.5, 300.25, 300.125, 95.0, 40.0, 39.5, 3.0, 0.5, 0.25)
"""How many days ago messages are, over months of which most have none."""


def noted(w: World) -> list[tuple[str, int]]:
    """What is read of the archive from now on: tables, and how many rows at most."""
    plugin, reads = w.plugin("archive"), list[tuple[str, int]]()

    def watched(table: Any, name: str) -> None:
        real = getattr(table, name)

        def noting(*about: Any, **more: Any) -> Any:
            reads.append((table.declaration.name, more.get("limit") or more.get("first") or 0))
            return real(*about, **more)

        setattr(table, name, noting)

    for table in (plugin.messages, plugin.months):
        for name in ("scan", "scan_columns", "get_rows"):
            watched(table, name)
    return reads


async def filled(w: World, *days: float) -> tuple[Client, list[str]]:
    """Alice, and the ids of messages in her archive of so many days ago."""
    alice = await w.login("alice")
    uid = await w.plugin("archive").uid_of("alice@localhost")
    return alice, [to_text(id) for id in await put(w, uid, *days)]


async def test_the_newest_page_is_one_read_where_its_month_has_enough() -> None:
    async with world(nodes=1) as w:
        alice, ids = await filled(w, 40, *[0.01 - number / 1e5 for number in range(5)])
        reads = noted(w)
        found = await find(alice, page("<max>3</max><before/>"))
        assert found.ids == ids[3:] and not found.is_complete
        assert reads == [("archive_messages", 4)]


@pytest.mark.parametrize("back", [False, True])
async def test_an_id_that_has_to_be_there_is_read_with_what_is_behind_it(back: bool) -> None:
    async with world(nodes=1) as w:
        alice, ids = await filled(w, *[0.01 - number / 1e5 for number in range(7)])
        reads = noted(w)
        step, wanted = ("before", ids[1:3]) if back else ("after", ids[4:6])
        found = await find(alice, page(f"<max>2</max><{step}>{ids[3]}</{step}>"))
        assert found.ids == wanted and not found.is_complete
        assert reads == [("archive_messages", 4)]
        plugin, gone = w.plugin("archive"), from_text(ids[3])
        assert gone is not None
        uid = await plugin.uid_of("alice@localhost")
        await plugin.messages.delete(uid, month_of(gone), gone, "bob@localhost")
        [error] = await ask(alice, page(f"<{step}>{ids[3]}</{step}>"))
        assert error.get("type") == "error" and "item-not-found" in error[-1][0].tag


async def test_what_comes_behind_the_last_message_is_one_read() -> None:
    async with world(nodes=1) as w:
        alice, ids = await filled(w, 0.02, 0.01)
        reads = noted(w)
        found = await find(alice, page(f"<after>{ids[-1]}</after>"))
        assert found.ids == [] and found.is_complete and len(reads) == 1


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 10])
async def test_pages_go_over_months_without_any(size: int, back: bool) -> None:
    async with world() as w:
        alice, ids = await filled(w, *MONTHS)
        found, step = list[list[str]](), "<before/>" if back else ""
        while True:
            one = await find(alice, page(f"<max>{size}</max>{step}"))
            found.append(one.ids)
            assert len(one.ids) == size or one.is_complete
            if one.is_complete:
                break
            step = f"<before>{one.first}</before>" if back else f"<after>{one.last}</after>"
        assert [id for some in (found[::-1] if back else found) for id in some] == ids
        assert all(found), "the last one says that it is"


async def test_ids_and_stamps_of_many_are_those_of_each() -> None:
    moments = sorted(random.Random(1).randrange(1 << 51) for _ in range(50))
    ids = [Pool().new_id(at + step) for at in moments for step in (0, 999, 1000, 10**6)]
    assert texts_of(ids) == [to_text(id).encode() for id in ids] and texts_of([]) == []
    assert Stamps(b"<", b">").of(ids) == [f"<{stamp_of(id)}>".encode() for id in ids]
