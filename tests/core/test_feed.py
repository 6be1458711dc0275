"""A feed: what waits is bounded, what was dropped is told, and its end is told once."""

import asyncio

import pytest

from xmppd.feed import Feed

pytestmark = pytest.mark.asyncio


async def test_records_come_in_order_and_whoever_waits_is_woken() -> None:
    feed = Feed(lambda: None)
    waiting = asyncio.create_task(feed.next(5))
    await asyncio.sleep(0)
    feed.put({"what": "one"})
    feed.put({"what": "two"})
    assert await waiting == {"what": "one"}
    assert await feed.next(5) == {"what": "two"}
    assert await feed.next(0.001) is None
    assert not feed.is_over


@pytest.mark.parametrize("size", [1, 40])
async def test_what_is_too_much_is_counted_where_it_would_have_stood(size: int) -> None:
    feed = Feed(lambda: None, most=3, most_bytes=100)
    for number in range(5):
        feed.put({"number": number}, size)
    kept = 3 if size == 1 else 2
    assert [feed.take() for _ in range(kept)] == [{"number": number} for number in range(kept)]
    assert feed.take() == {"what": "dropped", "count": 5 - kept}
    assert feed.take() is None
    feed.put({"number": 5}, size)
    assert feed.take() == {"number": 5}


async def test_what_comes_behind_what_was_dropped_comes_behind_its_count() -> None:
    feed = Feed(lambda: None, most=2)
    for number in range(4):
        feed.put({"number": number})
    assert feed.take() == {"number": 0}
    feed.put({"number": 4})
    found = [feed.take() for _ in range(3)]
    assert found == [{"number": 1}, {"what": "dropped", "count": 2}, {"number": 4}]


async def test_the_end_is_told_once_and_wakes_who_waits() -> None:
    ends = []
    feed = Feed(lambda: ends.append(1))
    waiting = asyncio.create_task(feed.next(5))
    await asyncio.sleep(0)
    feed.close()
    feed.close()
    feed.put({"what": "late"})
    assert await waiting is None
    assert feed.is_over and ends == [1]
