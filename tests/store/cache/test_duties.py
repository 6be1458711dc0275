"""Who does what one node of all does, agreed on in a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.store.cache.conftest import RedisServer
from xmppd.store.cache.duties import RedisDuties
from xmppd.store.cache.link import Link

pytestmark = pytest.mark.asyncio

LONG = 1000.0
SHORT = 0.05


@contextlib.asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    link = Link(5.0, lambda error: None)
    link.client = Redis.from_url(url)
    link.is_up = True
    pump = asyncio.get_running_loop().create_task(link.pump())
    yield link
    pump.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pump
    await link.client.aclose()


@pytest_asyncio.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    """A real Redis."""
    async with linked(redis_url) as link:
        yield link


class Pair:
    """Two nodes, and what Redis keeps for them."""

    def __init__(self, link: Link, *, life: float = LONG, renew: float = LONG) -> None:
        self.prefix = uuid4().hex
        self.one, self.other = (RedisDuties(link, self.prefix, life=life, renew=renew) for _ in range(2))
        self._client = link.client

    async def seconds_left(self) -> float:
        return float(await self._client.pttl(f"{self.prefix}:duty:work")) / 1000


async def said(link: Link) -> None:
    """Redis has heard all that was told."""
    await link.call("PING")


async def taken_in_the_end(duties: RedisDuties) -> None:
    """Somebody gets it when it is free; fails by the limit of the test otherwise."""
    while await duties.take("work", LONG):  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(SHORT)


async def test_what_one_took_is_not_the_others_until_it_is_due_again(link: Link) -> None:
    pair = Pair(link)
    assert await pair.one.take("work", 500.0) == 0.0
    left = await pair.other.take("work", 500.0)
    assert left is not None and 500.0 < left <= LONG, "as long as it is at work"
    pair.one.done("work")
    await said(link)
    left = await pair.other.take("work", 500.0)
    assert left is not None and 0 < left <= 500.0
    assert await pair.other.take("other work", 500.0) == 0.0


async def test_what_took_longer_than_its_pause_is_free_at_once(link: Link) -> None:
    pair = Pair(link)
    assert await pair.one.take("work", 0.001) == 0.0
    await asyncio.sleep(0.002)
    pair.one.done("work")
    await said(link)
    assert await pair.other.take("work", 500.0) == 0.0


async def test_who_is_killed_at_work_has_it_for_a_while_only(link: Link) -> None:
    pair = Pair(link, life=2 * SHORT)
    assert await pair.one.take("work", SHORT) == 0.0
    await asyncio.wait_for(taken_in_the_end(pair.other), 10.0)


async def test_who_is_at_work_keeps_it(link: Link) -> None:
    pair = Pair(link, life=10.0, renew=SHORT)
    assert await pair.one.take("work", SHORT) == 0.0
    await link.client.pexpire(f"{pair.prefix}:duty:work", 5000)
    while await pair.seconds_left() <= 5.0:  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(SHORT)
    pair.one.done("work")
    await said(link)
    assert await pair.other.take("work", 1.0) == 0.0


async def test_what_is_due_much_later_is_not_made_shorter_by_being_at_work(link: Link) -> None:
    pair = Pair(link, life=1.0, renew=SHORT)
    assert await pair.one.take("work", 500.0) == 0.0
    await asyncio.sleep(3 * SHORT)
    pair.one.done("work")
    await said(link)
    assert await pair.seconds_left() > 400.0


async def test_who_lost_it_takes_nothing_from_whoever_has_it_now(link: Link) -> None:
    pair = Pair(link)
    assert await pair.one.take("work", SHORT) == 0.0
    await link.client.delete(f"{pair.prefix}:duty:work")
    assert await pair.other.take("work", 500.0) == 0.0
    pair.one.done("work")
    await said(link)
    assert await pair.seconds_left() > 400.0


async def test_nobody_can_tell_while_redis_is_away(link: Link) -> None:
    pair = Pair(link)
    link.is_up = False
    assert await pair.one.take("work", 500.0) is None
    pair.one.done("work")
    link.is_up = True
    assert await pair.one.take("work", 500.0) == 0.0
    link.is_up = False
    pair.one.done("work")


async def test_a_full_redis_is_one_that_cannot_tell(own_server: RedisServer) -> None:
    async with linked(own_server.url) as link:
        pair = Pair(link)
        own_server.ask("CONFIG", "SET", "maxmemory", "1")
        assert await pair.one.take("work", 500.0) is None
        assert link.is_up
