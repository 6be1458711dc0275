"""What long messages cost where an archive is gone through: they count as several, and others have turns."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from plugins.archive.conversations import MOST, WEIGHT, ListQuery, Lists, Walk
from plugins.archive.ids import Pool
from plugins.archive.reading import LARGE, TURN, Archived
from plugins.archive.seeking import Seeker, in_turns

AT = 1_700_000_000_000_000
ALL = ListQuery(b"", b"", "", 2)


def message(number: int, size: int, peer: str = "alice@a", sender: str = "") -> Archived:
    start = f"<message from='{sender or peer}/x' id='{number}'><body>"
    text = "x" * (size - len(start) - len("</body></message>"))
    return Archived(Pool().new_id(AT - number), peer, f"{start}{text}</body></message>".encode())


class Given(Seeker):
    """An archive that has these messages in one page, and no table."""

    def __init__(self, page: list[Archived]) -> None:
        self._page = page

    async def newest(self, peer: str, after: bytes, before: bytes) -> AsyncIterator[list[Archived]]:
        yield self._page


class Nothing:
    """A table without rows."""

    async def get_rows(self, *about: Any, keys: Any) -> list[Any]:
        return []


async def turns_of(work: Coroutine[Any, Any, Any]) -> int:
    """How often others were served meanwhile."""
    count, task = 0, asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    await task
    return count


def lists(page: list[Archived]) -> Coroutine[Any, Any, Any]:
    return Lists(Given(page), Nothing(), 1).page("bob@b", ALL, b"", b"")  # type: ignore[arg-type]


def finds(page: list[Archived]) -> Coroutine[Any, Any, Any]:
    return Given(page).find("alice@a", "alice@a", "none", b"")


@pytest.mark.parametrize("work", [lists, finds])
@pytest.mark.asyncio
async def test_others_are_served_between_long_messages(
    work: Callable[[list[Archived]], Coroutine[Any, Any, Any]],
) -> None:
    assert await turns_of(work([message(number, TURN) for number in range(30)])) >= 30
    assert await turns_of(work([message(number, 100) for number in range(30)])) < 10


def test_pieces_are_of_so_many_bytes_but_one_message() -> None:
    page = [message(number, size) for number, size in enumerate((TURN - 1, 200, 200, TURN, TURN, 100))]
    assert [len(piece) for piece in in_turns(page)] == [2, 2, 1, 1]
    assert [each for piece in in_turns(page) for each in piece] == page
    assert list(in_turns([])) == []


@pytest.mark.asyncio
async def test_long_messages_count_as_several_where_one_is_looked_for() -> None:
    page = [message(number, 10 * LARGE) for number in range(8)]
    assert (await finds(page)).rows == 88
    found = await Given(page).find("alice@a", "alice@a", "7", b"")
    assert found.message == page[7] and found.rows == 88


def test_a_list_ends_after_so_many_messages_or_fewer_long_ones() -> None:
    walk = Walk("bob@b", ALL)
    assert not walk.take([message(number, 100, sender="bob@b") for number in range(MOST)], {})
    assert walk.take([message(MOST, 100, sender="bob@b")], {}) and walk.is_bounded and walk.weight == MOST
    long = Walk("bob@b", ALL)
    count = WEIGHT // 101
    assert not long.take([message(number, 100 * LARGE, sender="bob@b") for number in range(count)], {})
    assert long.weight == count * 101 and not long.is_bounded
    assert long.take([message(number, 100 * LARGE, sender="bob@b") for number in range(count, count + 2)], {})
    assert long.is_bounded and WEIGHT <= long.weight < WEIGHT + 101


def test_messages_that_are_not_on_the_page_are_not_kept() -> None:
    walk = Walk("bob@b", ALL)
    walk.take([message(number, 100, peer=f"p{number}@a") for number in range(5)], {})
    assert [one.peer for one in walk.page] == ["p0@a", "p1@a"]
    assert [one.peer for one in walk._all.values() if one.last is not None] == ["p0@a", "p1@a"]
