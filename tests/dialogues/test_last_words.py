"""Who comes online is shown the last words of many, and nobody else waits for the store because of that."""

import asyncio
from typing import Any

import pytest
from several import several

from xmppd.core.lastseen import LAST_PRESENCE, ROSTERS_AT_ONCE
from xmppd.core.roster.item import row_of
from xmppd.core.roster.rosters import ROSTER, RosterItem
from xmppd.errors import StoreTimeout
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Page, Put, Store, Table
from xmppd.testing import World

pytestmark = pytest.mark.asyncio

TALKERS = 3 * ROSTERS_AT_ONCE + 10
STRANGERS = 5
"""How many of them do not let alice see their presence any more."""


class SlowStore(SqliteStore):
    """Answers to a scan come later; remembers how many waited at most."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.waiting = self.most = 0

    async def scan(self, table: Table, *args: Any, **more: Any) -> Page:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        for _ in range(5):
            await asyncio.sleep(0)
        self.waiting -= 1
        return await super().scan(table, *args, **more)


class DeafStore(SqliteStore):
    """Does what it is asked, or not if it `is_away`, and the answer is lost, as long as it is `deaf`."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.is_deaf = self.is_away = False

    async def put(self, table: Table, row: Any, **more: Any) -> None:
        is_lost = self.is_deaf and table is LAST_PRESENCE
        if not (is_lost and self.is_away):
            await super().put(table, row, **more)
        if is_lost:
            raise StoreTimeout("no answer came")


async def knows(store: Store, account: str, *contacts: RosterItem) -> None:
    await store.batch(ROSTER, (account,), [Put(row_of(item)) for item in contacts], static={"version": 1})


async def test_last_words_of_many() -> None:
    store = SlowStore()
    async with World(store=store) as world:
        talkers = [f"talker{number}@localhost" for number in range(TALKERS)]
        await knows(store, "alice@localhost", *(RosterItem(name, "to") for name in talkers))
        for number, name in enumerate(talkers):
            seen = "none" if number < STRANGERS else "from"
            await knows(store, name, RosterItem("alice@localhost", seen))
            head = f"<presence from='{name}/x' type='unavailable'".encode()
            await store.put(LAST_PRESENCE, {"account": name, "head": head, "tail": b"/>", "at": 1.0})
        alice = await world.bind("alice")
        await alice.send("<presence/>")
        shown = [found.get("from") for found in await alice.receive_all()]
        assert shown[0] == alice.jid
        assert sorted(shown[1:]) == sorted(f"{name}/x" for name in talkers[STRANGERS:])
        assert 1 < store.most <= ROSTERS_AT_ONCE


@pytest.mark.one_node("has two nodes of its own")
@pytest.mark.parametrize("is_away", [False, True])
async def test_of_words_whose_write_failed_all_nodes_show_what_is_stored(
    redis_url: str, is_away: bool
) -> None:
    store = DeafStore()
    async with World(store=store, settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", "one", node=1), await world.login("bob", node=0)
        await world.befriend(alice, bob)
        await bob.send("<presence type='unavailable'><status>before</status></presence>")
        for client in (alice, await world.login("alice", "two", node=0)):
            await client.send(f"<presence to='{bob.bare}' type='probe'/>")
            await client.receive_all()  # both nodes know it
        await bob.send("<presence/>")
        store.is_deaf, store.is_away = True, is_away
        await bob.send("<presence type='unavailable'><status>after</status></presence>")
        store.is_deaf = False
        for node in (0, 1):
            client = await world.bind("alice", f"late{node}", node=node)
            await client.send("<presence/>")
            shown = [found for found in await client.receive_all() if found.get("type") == "unavailable"]
            words = [found.findtext("{jabber:client}status") for found in shown]
            assert words == ["before" if is_away else "after"]
