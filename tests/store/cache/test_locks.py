"""Locks that nodes share, when answers of Redis are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from patience import PATIENCE, rounds
from redis.asyncio import Redis

from xmppd.store.cache import locks as module
from xmppd.store.cache.link import Command, Link, LinkDown
from xmppd.store.cache.locks import Locks

pytestmark = pytest.mark.asyncio


class LossyLink(Link):
    """A real Redis whose answers can be lost on their way."""

    def __init__(self, client: Redis) -> None:
        super().__init__(1.0, lambda error: None)
        self.client = client
        self.is_up = True
        self.loses_answers = False
        self.failing_sends = 0

    def call(self, *command: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._call(command))

    async def _call(self, command: Command) -> Any:
        [answer] = await self.send([command], PATIENCE)
        if self.loses_answers:
            raise LinkDown
        return answer

    async def send(self, commands: Sequence[Command], limit: float) -> list[Any]:
        if self.failing_sends:
            self.failing_sends -= 1
            raise TimeoutError
        return await super().send(commands, limit)


@pytest.fixture(autouse=True)
def long_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody gives back stands for longer than tests wait."""
    monkeypatch.setattr(module, "LIFE_MS", int(4000 * PATIENCE))


@pytest_asyncio.fixture
async def link(redis_url: str) -> AsyncIterator[LossyLink]:
    client = Redis.from_url(redis_url)
    yield LossyLink(client)
    await client.aclose()


async def is_free_soon(link: LossyLink, key: str) -> bool:
    async for _ in rounds(0.05):
        if not await link.client.exists(key):
            return True
    return False


async def test_two_take_turns(link: LossyLink) -> None:
    locks, done = Locks(link, uuid4().hex), []

    async def work(number: int) -> None:
        async with locks.hold("queue"):
            done.append(number)
            await asyncio.sleep(0.05)
            done.append(number)

    await asyncio.gather(work(1), work(2))
    assert done in ([1, 1, 2, 2], [2, 2, 1, 1])


async def test_a_lock_that_was_taken_without_an_answer_is_given_back(link: LossyLink) -> None:
    prefix = uuid4().hex
    link.loses_answers = True
    async with Locks(link, prefix).hold("queue"):
        pass
    assert await is_free_soon(link, f"{prefix}:queue")


async def test_giving_back_is_tried_again(link: LossyLink) -> None:
    prefix = uuid4().hex
    async with Locks(link, prefix).hold("queue"):
        link.failing_sends = 1
    assert await is_free_soon(link, f"{prefix}:queue")


async def test_the_locks_of_a_process_that_has_ended_are_free(link: LossyLink) -> None:
    prefix, ended = uuid4().hex, set()
    killed, here = Locks(link, prefix), Locks(link, prefix)
    killed.belong(7, lambda number: False)
    here.belong(8, ended.__contains__)
    left = killed.hold("queue")
    await left.__aenter__()

    async def hold() -> None:
        async with here.hold("queue"):
            return

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hold(), 0.5)
    ended.add(7)
    await asyncio.wait_for(hold(), PATIENCE)
    assert await is_free_soon(link, f"{prefix}:queue")


async def test_a_lock_that_another_took_meanwhile_stays(link: LossyLink) -> None:
    prefix = uuid4().hex
    here, others = Locks(link, prefix), Locks(link, prefix)
    here.belong(8, {7}.__contains__)
    others.belong(9, {7}.__contains__)
    await link.client.set(f"{prefix}:queue", "7.left", px=module.LIFE_MS)
    inside = 0

    async def work(locks: Locks) -> None:
        nonlocal inside
        async with locks.hold("queue"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.05)
            inside -= 1

    await asyncio.wait_for(asyncio.gather(*(work(locks) for locks in (here, others, here, others))), PATIENCE)
