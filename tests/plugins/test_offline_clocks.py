"""Messages that nodes store whose clocks are wrong, and jump."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from several import several
from stores import new_store

from tests.plugins.test_offline import BODY, become_available, bodies, chat
from xmppd.core.ids import LOOK_SECONDS, SETTLED_SECONDS, WRITE_SECONDS
from xmppd.store.table import Delete, Key, Put, Store, Table
from xmppd.testing import World
from xmppd.xml.stanza import parse

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("has two nodes of its own")]

TEN_MINUTES = 600.0
LONG = SETTLED_SECONDS + 2 * LOOK_SECONDS + 1


def two(redis_url: str, store: Any) -> World:
    return World(plugins=("offline",), settings=several(redis_url), store=store, nodes=2)


@pytest.fixture
def shared() -> Store:
    return new_store()


@pytest.mark.parametrize("skews", [(TEN_MINUTES, -TEN_MINUTES), (-TEN_MINUTES, TEN_MINUTES), (0.0, 0.0)])
async def test_order_is_that_of_sending_whatever_the_clocks_say(
    redis_url: str, shared: Store, skews: tuple[float, float]
) -> None:
    async with two(redis_url, shared) as world:
        world.skews[:] = skews
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        for number in range(6):
            await chat((alice, carol)[number % 2], "bob@localhost", str(number))
            await world.advance(0.5)  # as one hears of the other
        bob = await world.bind("bob", node=1)
        await become_available(bob)
        assert await bodies(bob) == ["0", "1", "2", "3", "4", "5"]


async def test_order_stays_when_clocks_jump(redis_url: str, shared: Store) -> None:
    async with two(redis_url, shared) as world:
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        sent = 0
        for skews in ((0.0, 0.0), (TEN_MINUTES, 0.0), (-TEN_MINUTES, -TEN_MINUTES), (0.0, -TEN_MINUTES)):
            world.skews[:] = skews
            for client in (carol, alice):
                sent += 1
                await chat(client, "bob@localhost", str(sent))
                await world.advance(0.5)
        bob = await world.bind("bob", node=0)
        await become_available(bob)
        assert await bodies(bob) == [str(number + 1) for number in range(sent)]


async def test_a_node_that_reaches_no_other_follows_their_clocks_by_the_store(
    redis_url: str, shared: Store
) -> None:
    async with two(redis_url, shared) as world:
        world.cut(0, 1)
        world.skews[:] = (TEN_MINUTES, -TEN_MINUTES)
        await world.advance(2 * LOOK_SECONDS)
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        await chat(alice, "bob@localhost", "first")
        await world.advance(2 * LOOK_SECONDS)
        await chat(carol, "bob@localhost", "second")
        bob = await world.bind("bob", node=1)
        await become_available(bob)
        assert await bodies(bob) == ["first", "second"]


async def stored(world: World) -> list[str]:
    """What the messages say that are stored."""
    rows = [row async for row in world.plugin("offline").queue.everything()]
    return [str(parse(row["stanza"]).findtext(BODY)) for row in rows]


class Around:
    """A store whose batches somebody looks at."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class HeldStore(Around):
    """Deletes wait at its `gate`; `reached` when one does. `deletes` are all of them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        self.deletes: list[Delete] = []

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        found = [write for write in writes if isinstance(write, Delete)]
        if found:
            self.deletes += found
            self.reached.set()
            await self.gate.wait()
        return await self.store.batch(table, partition, writes, **how)


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("skews", [(TEN_MINUTES, -TEN_MINUTES), (0.0, -TEN_MINUTES), (TEN_MINUTES, 0.0)])
async def test_what_a_node_that_is_behind_stores_during_a_delivery_is_not_deleted(
    redis_url: str, shared: Store, is_cut: bool, skews: tuple[float, float]
) -> None:
    store = HeldStore(shared)
    async with two(redis_url, store) as world:
        world.skews[:] = skews
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        await chat(carol, "bob@localhost", "before")  # so the second node has counted what is kept
        await chat(alice, "bob@localhost", "first")
        await world.advance(LONG)
        await chat(alice, "bob@localhost", "last")
        if is_cut:
            world.cut(0, 1)
            await world.advance(10)
        bob = await world.bind("bob", node=0)
        store.gate.clear()
        bob.write("<presence/>")
        await store.reached.wait()
        carol.write("<message to='bob@localhost' type='chat'><body>meanwhile</body></message>")
        while "meanwhile" not in await stored(world):  # noqa: ASYNC110
            await asyncio.sleep(0)
        store.gate.set()
        await world.settle()
        assert any(delete.through for delete in store.deletes), "or there was no danger"
        if is_cut:
            world.connect_nodes(0, 1, trunk=2)
            await world.settle()
        assert await bodies(bob) == ["before", "first", "last", "meanwhile"]


class SlowStore(Around):
    """The next write of messages waits for `held`; what `is_deleted` then is no more there
    when its writer hears that it was written: another node had read before, and deletes what it gave.
    """

    held: asyncio.Event | None = None
    is_deleted = False

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        held, self.held = self.held, None
        if held is not None:
            await held.wait()
        done = await self.store.batch(table, partition, writes, **how)
        if held is not None and self.is_deleted:
            await self.store.delete(table, partition)
        return done


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_what_took_too_long_to_be_written_is_there_in_the_end(
    redis_url: str, shared: Store, is_deleted: bool
) -> None:
    store = SlowStore(shared)
    async with two(redis_url, store) as world:
        alice = await world.login("alice", node=0)
        store.held, store.is_deleted = asyncio.Event(), is_deleted
        held = store.held
        alice.write("<message to='bob@localhost' type='chat'><body>slow</body></message>")
        while store.held is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.clock.seconds += WRITE_SECONDS + 1
        held.set()
        await world.settle()
        bob = await world.bind("bob", node=1)
        await become_available(bob)
        assert await bodies(bob) == ["slow"]
