"""Web hooks: what is written of an act before it is done, and what is made of it by who comes next."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from patience import until
from receiver import Receiver
from several import several

from plugins.webhooks.marks import text_of
from plugins.webhooks.outbox import DEAD_SECONDS
from xmppd.core.events import Event
from xmppd.core.happenings import CHANGED, CREATED, MESSAGE, ROSTER
from xmppd.errors import StoreTimeout, StoreUnavailable
from xmppd.testing import World

LOCAL = {"webhooks": {"allowed": ["127.0.0.0/8"], "settle": 0.01}}


@asynccontextmanager
async def told(
    receiver: Receiver, *events: str, plugins: tuple[str, ...] = (), **more: Any
) -> AsyncIterator[World]:
    async with World(plugins=("webhooks", *plugins), plugin_config=LOCAL, **more) as world:
        arguments = {"name": "game", "url": receiver.url, "event": [*events]}
        await world.app.commands.call("webhook add", arguments)
        await world.advance(6)
        yield world


async def marks(world: World) -> list[str]:
    """All that are there now."""
    plugin = world.plugin("webhooks")
    rows = (await world.app.store.scan_all(plugin.marks.declaration, limit=1000)).rows
    return [row["event"] for row in rows if row["event"]]


def counted(world: World) -> list[Any]:
    """What marks are written from now on."""
    written: list[Any] = []
    for plugin in world.plugins("webhooks"):
        begin = plugin.foreseen.begin
        plugin.foreseen.begin = lambda event, about, begin=begin: (
            written.append(event.kind),
            begin(event, about),
        )[1]
    return written


@pytest.mark.asyncio
async def test_nothing_is_written_of_what_nobody_wants() -> None:
    async with Receiver() as receiver, told(receiver, "account.removed") as world:
        written = counted(world)
        await world.app.accounts.create("zoe@localhost", "secret")
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send(f"<message to='{bob.bare}' type='chat' id='m'><body>x</body></message>")
        await world.settle()
        assert written == []
        assert world.app.messages.foresee is None, "nobody is asked"
        await world.app.commands.call(
            "webhook change", {"name": "game", "event": ["message.routed"], "account": ["bob"]}
        )
        await world.advance(6)
        await alice.send(f"<message to='{bob.bare}' type='chat' id='m'><body>x</body></message>")
        await bob.send(f"<message to='{alice.bare}' type='chat' id='m'><body>x</body></message>")
        await world.settle()
        assert written == [MESSAGE.name]


@pytest.mark.asyncio
async def test_marks_go_when_all_is_told() -> None:
    async with Receiver() as receiver, told(receiver, "account.*", "roster.*", "message.routed") as world:
        written = counted(world)
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        for number in range(50):
            await alice.send(f"<message to='{bob.bare}' type='chat' id='{number}'><body>x</body></message>")
        await world.app.accounts.disable("carol@localhost")
        await world.settle()
        assert {*written} == {ROSTER.name, MESSAGE.name, CHANGED.name}
        await world.advance(2)
        assert await marks(world) == []
        for app in world.apps:
            assert not app.events._foreseen
        ids = [event["data"]["id"] for event in receiver.events if event["kind"] == MESSAGE.name]
        await until(lambda: len(receiver.events) >= len(written), lambda: world.advance(0.5))
        ids = [event["data"]["id"] for event in receiver.events if event["kind"] == MESSAGE.name]
        assert ids == [*map(str, range(50))]
        assert len({event["id"] for event in receiver.events}) == len(receiver.events)


@pytest.mark.asyncio
async def test_without_its_mark_nothing_is_done() -> None:
    async with Receiver() as receiver, told(receiver, "account.*", "message.routed") as world:
        alice = await world.login("alice", node=0)
        plugin = world.plugin("webhooks")

        async def fail(texts: Any) -> None:
            raise StoreUnavailable("for a test")

        plugin.foreseen._write = fail
        with pytest.raises(StoreUnavailable):
            await world.app.accounts.create("zoe@localhost", "secret")
        assert not await world.app.accounts.those(["zoe@localhost"])
        await alice.send("<message to='bob@localhost' type='chat' id='m'><body>x</body></message>")
        await world.settle()
        assert [stanza.get("type") for stanza in await alice.receive_all()] == ["error"]
        del plugin.foreseen._write
        await world.app.accounts.create("zoe@localhost", "secret")


@pytest.mark.asyncio
async def test_what_timed_out_and_is_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as world:
        put_if = world.app.store.put_if

        async def late(table: Any, row: Any, expect: Any, **more: Any) -> bool:
            is_written = await put_if(table, row, expect, **more)
            if table.name == "account" and row.get("account") == "zoe@localhost" and expect is None:
                raise StoreTimeout("for a test")
            return is_written

        monkeypatch.setattr(world.app.store, "put_if", late)
        with pytest.raises(StoreTimeout):
            await world.app.accounts.provision("zoe@localhost")
        await until(lambda: bool(receiver.events), lambda: world.advance(5))
        assert [(event["kind"], event["account"]) for event in receiver.events] == [
            (CREATED.name, "zoe@localhost")
        ]
        await world.advance(2)
        assert await marks(world) == []


async def left(
    world: World, kind: Any, account: str, data: dict[str, Any], about: dict[str, Any], at: float
) -> str:
    """A mark that a process has left which lived at that moment, and its id."""
    plugin = world.plugin("webhooks")
    event = Event("1-a", kind.name, kind.version, 1.0, "gone:5270", account, data)
    text = text_of(event.as_json(), about)
    await plugin.writers.put({"kind": "all", "writer": "w", "node": "gone:5270", "at": at, "heads": "{}"})
    await plugin.marks.put({"writer": "w", "slot": 0, "event": text})
    return event.id


@pytest.mark.asyncio
async def test_what_a_node_left_that_does_not_come_back_is_told_by_another(redis_url: str) -> None:
    async with (
        Receiver() as receiver,
        told(receiver, "account.*", nodes=2, settings=several(redis_url)) as world,
    ):
        row = await world.app.accounts._find("alice@localhost")
        about = {"created": row["created"], "changed": row["changed"]}
        await left(world, CREATED, "alice@localhost", {}, about, world.clock.now() - DEAD_SECONDS + 65)
        await world.advance(61)
        assert receiver.events == [], "it may be alive"
        await until(lambda: bool(receiver.events), lambda: world.advance(10))
        assert receiver.events[0]["id"] == "1-a"
        await world.advance(61)
        assert await marks(world) == []
        rows = (await world.plugin("webhooks").writers.scan("all")).rows
        assert "w" not in [row["writer"] for row in rows]


async def made_of(world: World, kind: Any, account: str, data: dict[str, Any], about: dict[str, Any]) -> Any:
    return await world.app.events.happened(kind, account, data, about)


@pytest.mark.asyncio
async def test_what_was_changed_again_is_told_as_it_is() -> None:
    async with Receiver() as receiver, told(receiver, "account.*", "roster.*") as world:
        accounts = world.app.accounts
        name = "alice@localhost"
        before = await accounts._find(name)
        about = {"created": before["created"], "before": before["changed"], "changed": 5}
        off, password = {"what": "disabled"}, {"what": "password"}
        assert await made_of(world, CHANGED, name, off, about) is None, "it stands as before"
        await accounts.disable(name)
        await accounts.enable(name)
        assert await made_of(world, CHANGED, name, off, about) == {"what": "enabled"}
        assert await made_of(world, CHANGED, name, password, about) == password
        assert await made_of(world, CHANGED, name, off, {**about, "created": 7.0}) is None, (
            "another has the name"
        )
        await accounts.remove(name)
        assert await made_of(world, CHANGED, name, password, about) is None
        alice = await world.login("bob")
        name, item = "bob@localhost", "<item jid='zoe@localhost' name='{}'/>"
        data = {"contact": "zoe@localhost", "before": None, "after": {"name": "a"}, "friends": False}
        version = await world.app.rosters.version(name)
        for one in ("a", "b"):
            await alice.ask("set", f"<query xmlns='jabber:iq:roster'>{item.format(one)}</query>")
        first, second = [entry.version for entry in await world.app.rosters.log(name, after=version)]
        ours = {"before": version, "version": first}
        found = await made_of(world, ROSTER, name, data, ours)
        assert (found["before"], found["after"]["name"]) == (None, "b"), "as it is now"
        assert await made_of(world, ROSTER, name, data, {"before": first, "version": second}) == data
        assert await made_of(world, ROSTER, name, data, {"before": version, "version": second + 9}) is None
        assert await made_of(world, ROSTER, name, data, {"before": second, "version": second + 5}) is None


@pytest.mark.asyncio
async def test_marks_of_who_is_erased_go() -> None:
    async with Receiver() as receiver, told(receiver, "report.made") as world:
        await left(world, CREATED, "carol@localhost", {}, {"created": 1.0}, world.clock.now())
        await world.app.commands.call("account erase", {"account": "carol@localhost"})
        await world.settle()
        assert await marks(world) == []
