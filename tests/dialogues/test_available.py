"""Presence of who comes while the store does not answer: it is shown when it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from patience import PATIENCE

from xmppd import ns
from xmppd.core.roster.item import ROSTER
from xmppd.errors import StoreTimeout, StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Table
from xmppd.testing import Client, World

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.one_node("of several nodes each has a roster of its own in memory"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmppd.core.available.PAUSES", (0.01, 0.02))


class Away(SqliteStore):
    """A store that reads no rosters while it `is_away`."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.is_away: Exception | None = None
        self.asked = 0

    def _refuse(self, table: Table) -> None:
        if self.is_away is not None and table.name == ROSTER.name:
            self.asked += 1
            raise self.is_away

    async def scan(self, table: Table, *arguments: Any, **how: Any) -> Any:
        self._refuse(table)
        return await super().scan(table, *arguments, **how)

    async def scan_many(self, table: Table, *arguments: Any, **how: Any) -> Any:
        self._refuse(table)
        return await super().scan_many(table, *arguments, **how)


async def friends_of_a_store(world: World) -> Any:
    alice, bob = await world.login("alice"), await world.login("bob")
    await world.befriend(alice, bob)
    await bob.send("</stream:stream>")
    await world.settle()
    await alice.receive_all()
    world.app.rosters.forget_all()
    return alice


async def come(world: World, first: str = "<presence/>") -> Any:
    bob = await world.bind("bob", "game")
    bob.write(first)
    return bob


async def until(condition: Callable[[], bool], *clients: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)
            for client in clients:
                client.pump()


async def seen(client: Any) -> Sequence[tuple[str | None, str | None]]:
    found = [(tree.get("from"), tree.get("type")) for tree in await client.receive_all()]
    return [one for one in found if "bob" in (one[0] or "")]


@pytest.mark.parametrize("error", [StoreTimeout("late"), StoreUnavailable("away")])
async def test_who_came_is_shown_when_the_store_answers(error: Exception) -> None:
    store = Away()
    async with World(store=store) as world:
        alice = await friends_of_a_store(world)
        store.is_away = error
        bob = await come(world)
        await until(lambda: store.asked > 2)
        assert await seen(alice) == []
        assert await seen(bob) == [], "it does not come back"
        store.is_away = None
        await until(lambda: bob.session.presence is not None)
        assert await seen(alice) == [(bob.jid, None)]
        assert (bob.jid, None) in await seen(bob)
        assert not world.app.presences._unshown


async def test_what_it_said_last_is_shown() -> None:
    store = Away()
    async with World(store=store) as world:
        alice = await friends_of_a_store(world)
        store.is_away = StoreUnavailable("away")
        bob = await come(world)
        bob.write("<presence><show>away</show></presence>")
        await until(lambda: store.asked > 8)
        assert len(world.app.presences._unshown._newest) == 1
        store.is_away = None
        await until(lambda: bob.session.presence is not None)
        shows = [tree.findtext(f"{{{ns.CLIENT}}}show") for tree in await alice.receive_all()]
        assert shows[-1] == "away"


async def test_who_has_gone_meanwhile_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmppd.core.output.PATIENCE_SECONDS", 0.05)
    store = Away()
    async with World(store=store) as world:
        alice = await friends_of_a_store(world)
        store.is_away = StoreUnavailable("away")
        unshown = world.app.presences._unshown
        bob = await come(world)
        await until(lambda: bool(unshown))
        bob.write("</stream:stream>")
        await until(lambda: not unshown, bob)
        again = await come(world)
        await until(lambda: bool(unshown))
        again.write("<presence type='unavailable'/>")
        await until(lambda: not unshown, again)
        store.is_away = None
        assert await seen(alice) == []
        again.write("<presence/>")
        assert await seen(alice) == [(again.jid, None)]


async def test_what_it_says_else_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmppd.core.output.PATIENCE_SECONDS", 0.05)
    store = Away()
    async with World(store=store) as world:
        await friends_of_a_store(world)
        carol = await world.login("carol")
        store.is_away = StoreUnavailable("away")
        bob = await come(world)
        bob.write(f"<message to='{carol.jid}'><body>hi</body></message>")
        assert [tree.findtext(f"{{{ns.CLIENT}}}body") for tree in await carol.receive_all()] == ["hi"]
        assert bob.session.presence is None
        store.is_away = None
