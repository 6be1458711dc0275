"""Web hooks: one order of what happens to an account, whichever processes tell it, and a list of these that
does not grow.
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arrived import ALICE, DORA, PLUGINS, RUN, arrival, item, roster
from patience import rounds
from receiver import Receiver
from several import several

from plugins.webhooks.outbox import DEAD_SECONDS
from xmppd.core.arrival import Terms
from xmppd.core.arrivals import ARRIVALS
from xmppd.testing import World

LOCAL = {"allowed": ["127.0.0.0/8"], "settle": 0.01}


@asynccontextmanager
async def told(receiver: Receiver, *events: str, plugins: tuple[str, ...] = ()) -> AsyncIterator[World]:
    """A server, or two of them, whose web hook leads to the receiver."""
    settings = {"webhooks": LOCAL}
    async with World(plugins=("webhooks", *plugins), plugin_config=settings) as world:
        arguments = {"name": "game", "url": receiver.url, "event": [*events]}
        await world.app.commands.call("webhook add", arguments)
        await world.advance(3)
        yield world


async def taken(world: World, receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """So many events that were taken: time goes on until then."""
    async for _ in rounds():
        if len(receiver.events) >= count:
            break
        await world.advance(0.25)
    assert len(receiver.events) >= count, receiver.kinds()
    return receiver.events


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_what_was_acknowledged_before_comes_before_though_nobody_says_that_it_is_there(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals between nodes are late, and who looked in vain for the first event finds the second."""
    settings = several(redis_url)
    async with (
        Receiver() as receiver,
        World(nodes=2, plugins=("webhooks",), plugin_config={"webhooks": LOCAL}, settings=settings) as world,
    ):
        arguments = {"name": "game", "url": receiver.url, "event": ["account.*"]}
        await world.app.commands.call("webhook add", arguments)
        await world.advance(3)
        plugins = world.plugins("webhooks")
        for app in world.apps:
            await app.accounts.disable("alice@localhost")
        await taken(world, receiver, 2)
        receiver.events.clear()
        await world.advance(3)
        [holder] = [it for it in plugins if any(one.lease.is_held for one in it.couriers.values())]
        for plugin in plugins:
            monkeypatch.setattr(plugin.boxes, "written", lambda number: None)
        writers = [row["writer"] for row in (await holder.writers.scan("all")).rows]
        first, second = (
            next(app for app, it in zip(world.apps, plugins, strict=True) if it.boxes.writer == writer)
            for writer in writers
        )
        read, looked = holder.outbox.scan, []

        async def late(number: str, writer: str, *about: Any, **more: Any) -> Any:
            found = await read(number, writer, *about, **more)
            looked.append(writer)
            if looked == writers[:1]:  # nothing of the first one is there: now there is
                await first.accounts.enable("alice@localhost")
                world.clock.seconds += 0.001
                await second.accounts.set_password("alice@localhost", "other")
                world.clock.seconds += 1.0  # so long took the look at all of them
            return found

        monkeypatch.setattr(holder.outbox, "scan", late)
        events = await taken(world, receiver, 2)
        assert [event["data"]["what"] for event in events] == ["enabled", "password"]
        assert events[0]["id"] < events[1]["id"]


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_a_node_whose_clock_is_behind_tells_nothing_earlier_than_it_has_heard_of(
    redis_url: str,
) -> None:
    settings = several(redis_url)
    async with (
        Receiver() as receiver,
        World(nodes=2, plugins=("webhooks",), plugin_config={"webhooks": LOCAL}, settings=settings) as world,
    ):
        arguments = {"name": "game", "url": receiver.url, "event": ["account.*"]}
        await world.app.commands.call("webhook add", arguments)
        await world.advance(3)
        first, second = world.apps
        second.ids.time._now = lambda: world.clock.now() - 60.0
        for number in range(3):
            await first.accounts.disable("alice@localhost")
            await world.advance(1.0)  # the trunk says what time it is
            await second.accounts.enable("alice@localhost")
            await taken(world, receiver, 2 * number + 2)
        assert [event["data"]["what"] for event in receiver.events] == ["disabled", "enabled"] * 3
        ids = [event["id"] for event in receiver.events]
        assert ids == sorted(ids)
        assert len({event["node"] for event in receiver.events}) == 2


@pytest.mark.asyncio
@pytest.mark.one_node(reason="rows are written by hand for processes that are gone")
async def test_what_an_earlier_process_left_goes_first_however_much_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as world:
        plugin = world.plugin("webhooks")
        [courier] = plugin.couriers.values()
        monkeypatch.setattr(sys.modules[type(courier).__module__], "EVENTS", 10)
        await world.app.commands.call("webhook pause", {"name": "game"})
        [number] = plugin.couriers
        for writer, moments in (("zz", range(0, 200, 2)), ("aa", range(1, 200, 2))):
            await plugin.writers.put(
                {"kind": "all", "writer": writer, "node": "", "at": plugin.now(), "heads": "{}"}
            )
            for row, at in enumerate(moments):
                about = {"id": f"{at:015x}-{writer}", "account": "alice@localhost", "time": at / 10}
                rest = {"bucket": 0, "row": row, "events": json.dumps(about)}
                await plugin.outbox.put({"subscription": number, "writer": writer, **rest})
        await world.app.accounts.disable("alice@localhost")
        await world.app.commands.call("webhook resume", {"name": "game"})
        events = await taken(world, receiver, 201)
        ids = [event["id"] for event in events]
        assert ids == sorted(ids)
        assert events[-1]["kind"] == "account.changed"


@pytest.mark.asyncio
@pytest.mark.one_node(reason="one process after another")
async def test_processes_that_have_ended_leave_the_list() -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as world:
        listed = 5
        for _ in range(listed - 1):
            await world.app.accounts.disable("alice@localhost")
            await world.app.loader.reload("webhooks", world.app.config)
        await world.app.accounts.enable("alice@localhost")
        await taken(world, receiver, listed)
        plugin = world.plugin("webhooks")
        rows = (await plugin.writers.scan("all")).rows
        assert len(rows) == listed
        await plugin.tidy()
        assert len((await plugin.writers.scan("all")).rows) == listed, "they may still write"
        for _ in range(40):
            await world.advance(5)
        assert [row["writer"] for row in (await plugin.writers.scan("all")).rows] == [plugin.boxes.writer]
        await world.app.accounts.disable("alice@localhost")
        await taken(world, receiver, listed + 1)


@pytest.mark.asyncio
@pytest.mark.one_node(reason="one process after another")
async def test_a_process_whose_events_wait_stays_on_the_list() -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as world:
        await world.app.commands.call("webhook pause", {"name": "game"})
        await world.app.accounts.disable("alice@localhost")
        await world.app.loader.reload("webhooks", world.app.config)
        for _ in range(40):
            await world.advance(5)
        await world.app.commands.call("webhook resume", {"name": "game"})
        [event] = await taken(world, receiver, 1)
        assert event["data"] == {"what": "disabled"}


@pytest.mark.asyncio
@pytest.mark.one_node(reason="a process that stands still")
async def test_a_process_that_was_thought_dead_is_heard_again() -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as world:
        plugin = world.plugin("webhooks")
        await world.app.accounts.disable("alice@localhost")
        await taken(world, receiver, 1)
        [one] = plugin.couriers.values()
        writer, plugin.boxes.writer = plugin.boxes.writer, "another"  # who looks is not who writes
        row = (await plugin.writers.scan("all")).rows[0]
        await plugin.writers.put({**row, "at": row["at"] - DEAD_SECONDS - 1})
        for _ in range(8):
            await world.advance(1)
        assert writer in one._drained
        await plugin.boxes.tidy()
        assert (await plugin.writers.scan("all")).rows == []
        plugin.boxes.writer = writer
        plugin.boxes._said = plugin.now() - DEAD_SECONDS
        await world.app.accounts.enable("alice@localhost")
        events = await taken(world, receiver, 2)
        assert [event["data"]["what"] for event in events] == ["disabled", "enabled"]


@pytest.mark.asyncio
async def test_a_renaming_is_told_of_both_addresses_in_order() -> None:
    async with Receiver() as receiver, told(receiver, "account.*", "session.*", "roster.changed") as world:
        call = world.app.commands.call
        await call("roster befriend", {"one": "alice@localhost", "other": "bob@localhost"})
        await world.login("alice", "phone")
        await call("account rename", {"old": "alice@localhost", "new": "zoe@localhost"})
        await world.settle()
        zoe = await world.bind("zoe", "phone")
        assert zoe.bare == "zoe@localhost"
        events = await taken(world, receiver, 8)
        for more in range(9, 40):  # two nodes may tell of more before it
            if any(it["kind"] == "session.started" and it["account"] == "zoe@localhost" for it in events):
                break
            events = await taken(world, receiver, more)

    def kinds(account: str) -> list[str]:
        return [event["kind"] for event in events if event["account"] == f"{account}@localhost"]

    assert kinds("alice")[-3:] == ["session.started", "session.ended", "account.renamed"]
    assert kinds("zoe")[:2] == ["account.renamed", "session.started"]
    renamed = [event["data"] for event in events if event["kind"] == "account.renamed"]
    assert renamed == [{"old": "alice@localhost", "new": "zoe@localhost"}] * 2
    changed = [
        it["data"] for it in events if (it["kind"], it["account"]) == ("roster.changed", "bob@localhost")
    ]
    gone, come = changed[-2:] if changed[-2]["after"] is None else changed[:-3:-1]
    assert (gone["contact"], gone["after"]) == ("alice@localhost", None)
    assert (come["contact"], come["friends"]) == ("zoe@localhost", True)


@pytest.mark.asyncio
async def test_a_migration_is_told_to_who_names_it() -> None:
    async with Receiver() as receiver, told(receiver, "account.migrated", plugins=PLUGINS) as world:
        arrivals, store = world.app.arrivals, world.app.store
        await arrivals.take(arrival(), RUN)
        more = arrival(ALICE, roster=roster(item("bob@localhost")))
        await arrivals.take(more, Terms("run1", "merge"))
        for account in (DORA, ALICE):
            mark = await store.get(ARRIVALS, (account,))
            assert mark is not None
            await arrivals.undo(mark)
        events = await taken(world, receiver, 4)
        found = sorted((event["account"], event["data"]["what"]) for event in events)
        assert found == [(ALICE, "changed"), (ALICE, "restored"), (DORA, "made"), (DORA, "removed")]
        assert {event["data"]["run"] for event in events} == {"run1"}
        assert not world.app.events.wants(world.app.events.kinds["account.created"])
