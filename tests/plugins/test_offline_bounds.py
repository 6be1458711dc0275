"""How much is kept for one account is a matter of all nodes together."""

from __future__ import annotations

from typing import Any

import pytest
from several import CHAT, bodies, several
from stores import ON_CASSANDRA, new_store

from xmppd import ns
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Page, Table
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

BOB = "bob@localhost"
MESSAGE = f"{{{ns.CLIENT}}}message"
HEARD_SECONDS = 0.1
"""By then nodes have told each other what they stored."""


def world_of(redis_url: str, nodes: int = 2, store: Any = None, **config: int) -> World:
    return World(
        plugins=("offline",),
        plugin_config={"offline": config},
        settings=several(redis_url),
        nodes=nodes,
        store=store,
    )


async def is_kept(sender: Client, body: str) -> bool:
    """Whether a message for bob is kept; the other nodes have heard of it."""
    await sender.send(CHAT.format(to=BOB, body=body))
    await sender.world.advance(HEARD_SECONDS)
    answers = [answer for answer in await sender.receive_all() if answer.tag == MESSAGE]
    assert all(refusal(answer) == "cancel service-unavailable" for answer in answers)
    return not answers


async def delivered(world: World, node: int = 0) -> list[str]:
    bob = await world.bind("bob", node=node)
    await bob.send("<presence/>")
    found = await bodies(bob)
    await bob.drop()
    return found


@pytest.mark.parametrize("nodes", [2, 3])
async def test_nodes_that_store_in_turn_keep_to_one_bound(redis_url: str, nodes: int) -> None:
    async with world_of(redis_url, nodes, max_messages=5) as world:
        senders = [await world.login("alice", node=node) for node in range(nodes)]
        kept = [await is_kept(senders[number % nodes], str(number)) for number in range(12)]
        assert kept == [True] * 5 + [False] * 7
        assert await delivered(world) == ["0", "1", "2", "3", "4"]


async def test_their_size_is_one_too(redis_url: str) -> None:
    async with world_of(redis_url, max_bytes=2000) as world:
        senders = [await world.login("alice", node=node) for node in range(2)]
        kept = [await is_kept(senders[number % 2], "x" * 400) for number in range(8)]
        assert kept == [True] * 3 + [False] * 5


async def test_what_was_stored_at_once_may_be_too_much_and_nothing_behind_it(redis_url: str) -> None:
    async with world_of(redis_url, 3, max_messages=5) as world:
        senders = [await world.login("alice", node=number % 2) for number in range(8)]
        third = await world.login("alice", node=2)
        for sender in senders:
            await sender.receive_all()
        for number, sender in enumerate(senders):
            sender.write(CHAT.format(to=BOB, body=str(number)))
        await world.advance(HEARD_SECONDS)
        assert [await sender.receive_all() for sender in senders] == [[]] * 8, "each node had room for four"
        for sender in (third, *senders[:2]):
            assert not await is_kept(sender, "too much")
        assert len(await delivered(world)) == 8


async def test_there_is_room_on_all_nodes_when_the_messages_were_delivered(redis_url: str) -> None:
    async with world_of(redis_url, max_messages=3) as world:
        senders = [await world.login("alice", node=node) for node in range(2)]
        for _ in range(2):
            assert [await is_kept(senders[number % 2], str(number)) for number in range(4)] == [
                True,
                True,
                True,
                False,
            ]
            assert await delivered(world, node=1) == ["0", "1", "2"]
            await world.advance(HEARD_SECONDS)


async def test_what_is_stored_just_behind_a_delivery_counts_too(redis_url: str) -> None:
    async with world_of(redis_url, max_messages=3) as world:
        one, other = [await world.login("alice", node=node) for node in range(2)]
        assert await is_kept(one, "1") and await is_kept(other, "2") and await is_kept(one, "3")
        assert await delivered(world, node=1) == ["1", "2", "3"]
        assert [await is_kept(other, "4"), await is_kept(one, "5"), await is_kept(one, "6")] == [True] * 3
        assert not await is_kept(one, "7") and not await is_kept(other, "7")


async def test_what_was_delivered_before_it_was_told_counts_nowhere(redis_url: str) -> None:
    async with world_of(redis_url, max_messages=2) as world:
        one, other = [await world.login("alice", node=node) for node in range(2)]
        await other.send(CHAT.format(to=BOB, body="1"))
        assert await delivered(world, node=1) == ["1"]
        await one.send(CHAT.format(to=BOB, body="2"))
        await world.advance(HEARD_SECONDS)
        assert await is_kept(one, "3") and not await is_kept(one, "4")


async def test_there_is_room_for_who_has_the_name_next(redis_url: str) -> None:
    async with world_of(redis_url, max_messages=1) as world:
        senders = [await world.login("alice", node=node) for node in range(2)]
        assert await is_kept(senders[0], "old") and not await is_kept(senders[1], "old")
        await world.apps[0].commands.call("user remove", {"account": BOB})
        await world.apps[0].accounts.create(BOB, "secret")
        await world.advance(HEARD_SECONDS)
        assert await is_kept(senders[1], "new")
        assert await delivered(world) == ["new"]


async def test_a_message_that_could_not_be_written_takes_no_room(redis_url: str) -> None:
    async with world_of(redis_url, max_messages=3) as world:
        alice = await world.login("alice", node=1)
        assert await is_kept(alice, "first")
        world.plugin("offline", 1).changed("another node", {BOB: [2, 1000]})  # and did not write them
        assert not await is_kept(alice, "second"), "it was counted just now"
        await world.advance(10)
        assert await is_kept(alice, "second")


class Reading(SqliteStore):
    """Counts how often it is read."""

    reads = 0

    async def scan(self, table: Table, *args: object, **kwargs: object) -> Page:
        self.reads += table.name == "offline_queue"
        return await super().scan(table, *args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.own_engine
async def test_a_full_queue_is_not_read_for_each_message_that_is_refused(redis_url: str) -> None:
    store = Reading(":memory:")
    async with world_of(redis_url, store=store, max_messages=250) as world:
        alice = await world.login("alice", node=0)
        await alice.send("".join(CHAT.format(to=BOB, body=str(number)) for number in range(250)))
        assert await alice.receive_all() == []
        other = await world.login("alice", node=1)
        before = store.reads
        for _ in range(20):
            assert not await is_kept(other, "too much")
        assert store.reads - before == 3, "three pages, once"
        await world.advance(10)
        assert not await is_kept(other, "too much")
        assert store.reads - before == 6


async def test_one_node_tells_nobody_and_reads_one_row() -> None:
    store = new_store() if ON_CASSANDRA else Reading(":memory:")
    async with World(plugins=("offline",), store=store, nodes=1) as world:
        alice = await world.login("alice")
        before = getattr(store, "reads", 0)
        assert await is_kept(alice, "first")
        await alice.send(CHAT.format(to=BOB, body="second"))
        assert world.plugin("offline")._untold == {}
        assert getattr(store, "reads", 1) - before == 1
