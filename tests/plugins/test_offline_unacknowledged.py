"""What was stored is kept until a client with stream management (XEP-0198) has acknowledged it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from managing import ask_to_resume, bodies, enable, ready, resume
from patience import rounds
from several import several

from xmppd import ns
from xmppd.errors import StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

NODES = pytest.mark.parametrize("nodes", [1, 2])
OFFLINE = ("offline",)


def chat(body: str, to: str = "bob@localhost") -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body></message>"


def a(client: Client) -> str:
    """All that it was sent is acknowledged."""
    return f"<a xmlns='{ns.SM}' h='{client.session.managed.sent}'/>"


async def rows(w: World) -> list[Any]:
    return [*(await w.plugin("offline").queue.scan("bob@localhost")).rows]


async def store(w: World, *texts: str) -> None:
    alice = await w.login("alice", node=0)
    await alice.send("".join(map(chat, texts)))
    await w.settle()
    await alice.send("</stream:stream>")
    assert len(await rows(w)) == len(texts)


async def come(w: World, resource: str = "r", *, node: int = 0) -> tuple[Client, str]:
    """Bob with stream management; he has not acknowledged what he is given."""
    bob = await w.bind("bob", resource, node=node)
    id = await enable(bob)
    await bob.send("<presence/>")
    await w.settle()
    return bob, id


async def kill(w: World, node: int) -> None:
    """A node is gone without a word, and the other knows."""
    other = w.cluster(1 - node)
    w.cut(0, 1)
    other.mesh.give_up(other.mesh.members[w.cluster(node).mesh.name], "it was killed")
    await w.settle()


@NODES
async def test_it_is_deleted_when_it_was_acknowledged(redis_url: str, nodes: int) -> None:
    async with World(plugins=OFFLINE, nodes=nodes, settings=several(redis_url)) as w:
        await store(w, *"123")
        bob, _ = await come(w, node=nodes - 1)
        assert bodies(await bob.receive_all()) == [*"123"]
        assert len(await rows(w)) == 3
        sent = bob.session.managed.sent
        await bob.send(f"<a xmlns='{ns.SM}' h='{sent - 1}'/>")
        await w.settle()
        assert [b">3<" in row["stanza"] for row in await rows(w)] == [True]
        await bob.send(a(bob))
        await w.settle()
        assert await rows(w) == [] and not any(one.held for one in w.plugins("offline"))


@NODES
async def test_without_stream_management_when_it_was_written(redis_url: str, nodes: int) -> None:
    async with World(plugins=OFFLINE, nodes=nodes, settings=several(redis_url)) as w:
        await store(w, "1")
        bob = await w.login("bob", node=nodes - 1)
        assert await rows(w) == [] and bodies(await bob.receive_all()) == []


@pytest.mark.one_node
@pytest.mark.own_engine
async def test_a_kill_between_loses_nothing(tmp_path: Path) -> None:
    async with World(plugins=OFFLINE, store=SqliteStore(tmp_path / "0.db")) as w:
        await store(w, *"12")
        bob, _ = await come(w)
        assert bodies(await bob.receive_all()) == [*"12"]
        await w.settle()
        with sqlite3.connect(tmp_path / "0.db") as old, sqlite3.connect(tmp_path / "1.db") as new:
            old.backup(new)
        async with World(plugins=OFFLINE, store=SqliteStore(tmp_path / "1.db"), accounts=()) as w2:
            again = await w2.login("bob")  # without the id of his session
            stamps = again.raw.count(b"<delay")
            assert b"<body>1</body>" in again.raw and b"<body>2</body>" in again.raw and stamps == 2


async def test_a_killed_node_loses_nothing(redis_url: str) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as w:
        await store(w, *"12")
        bob, _ = await come(w, node=0)
        assert bodies(await bob.receive_all()) == [*"12"]
        waits, _ = await come(w, "other", node=1)
        assert bodies(await waits.receive_all()) == [], "the first one may have it"
        await kill(w, 0)
        assert bodies(await waits.receive_all()) == [*"12"]
        await waits.send(a(waits))
        await w.settle()
        assert [*(await w.plugin("offline", 1).queue.scan("bob@localhost")).rows] == []


@NODES
@pytest.mark.parametrize("is_replaced", [True, False])
async def test_others_are_given_it_when_who_did_not_acknowledge_it_is_gone(
    redis_url: str, nodes: int, is_replaced: bool
) -> None:
    async with World(plugins=OFFLINE, nodes=nodes, settings=several(redis_url)) as w:
        await store(w, *"12")
        first, _ = await come(w, node=0)
        assert bodies(await first.receive_all()) == [*"12"]
        other, _ = await come(w, "other", node=nodes - 1)
        alice = await w.login("alice", node=nodes - 1)
        await alice.send(chat("3", first.jid))
        await first.receive_all()
        await first.drop()
        await w.settle()
        assert bodies(await other.receive_all()) == []
        session, app = first.session, first.app
        if is_replaced:
            again, _ = await come(w, node=0)
            first = again
        else:
            app.binding.end(session)
        await w.settle()
        got = [bodies(await one.receive_all()) for one in ([first] if is_replaced else []) + [other]]
        assert max(got, key=len) == [*"123"] and sum(map(len, got)) == 3
        for one in [other, *([first] if is_replaced else [])]:
            await one.send(a(one))
        await w.settle()
        assert await rows(w) == []


@NODES
async def test_a_session_that_is_resumed_has_it_once(redis_url: str, nodes: int) -> None:
    async with World(plugins=OFFLINE, nodes=nodes, settings=several(redis_url)) as w:
        await store(w, *"123")
        bob, id = await come(w, node=0)
        got = await bob.receive_all()
        assert bodies(got) == [*"123"]
        sent = bob.session.managed.sent
        await bob.drop()
        bob = await resume(w, bob, id, sent - 2, node=nodes - 1)
        assert bodies(await bob.receive_all()) == [*"23"]
        await w.settle()
        assert len(await rows(w)) == 2
        await w.advance(20)
        other, _ = await come(w, "other", node=0)
        assert bodies(await other.receive_all()) == []
        await bob.send(a(bob))
        await w.settle()
        assert await rows(w) == [] and not any(one.held for one in w.plugins("offline"))


async def test_a_session_that_moved_and_is_killed_there(redis_url: str) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as w:
        await store(w, *"12")
        bob, id = await come(w, node=0)
        await bob.receive_all()
        await bob.drop()
        bob = await resume(w, bob, id, bob.session.managed.sent - 1, node=1)
        await w.settle()
        await kill(w, 1)
        await w.advance(20)
        again, _ = await come(w, "new", node=0)
        assert bodies(await again.receive_all()) == ["2"]


async def test_what_nobody_resumed_is_given_to_others(redis_url: str) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as w:
        await store(w, *"12")
        bob, id = await come(w, node=0)
        await bob.receive_all()
        await bob.drop()
        assert await w.apps[0].handover.give(id, "bob@localhost", 0) is not None
        other, _ = await come(w, "other", node=1)
        assert bodies(await other.receive_all()) == []
        await w.advance(20)
        assert bodies(await other.receive_all()) == [*"12"]


@NODES
async def test_many_are_deleted_as_they_are_acknowledged(redis_url: str, nodes: int) -> None:
    texts = [str(number) for number in range(250)]
    async with World(plugins=OFFLINE, nodes=nodes, settings=several(redis_url)) as w:
        await store(w, *texts)
        bob, _ = await come(w, node=nodes - 1)
        assert bodies(await bob.receive_all()) == texts
        before = bob.session.managed.sent - 250
        for number in (10, 120, 250):
            await bob.send(f"<a xmlns='{ns.SM}' h='{before + number}'/>")
            await w.settle()
            assert len(await rows(w)) == 250 - number
        await store(w)
        other, _ = await come(w, "other")
        assert bodies(await other.receive_all()) == []


@NODES
async def test_a_stream_that_is_not_acknowledged_and_not_resumed(redis_url: str, nodes: int) -> None:
    settings = {**several(redis_url), "limits": {"unacked_stanzas": 4}}
    async with World(plugins=OFFLINE, nodes=nodes, settings=settings) as w:
        await store(w, *"123456")
        bob, id = await come(w, node=0)
        got = bodies(await bob.receive_all())
        assert got[:3] == [*"123"]
        await bob.drop()
        await w.settle()
        again = await ready(w, "bob", node=0)
        assert (await ask_to_resume(again, id)).tag.endswith("failed")
        await again.bind("new")
        await enable(again)
        await again.send("<presence/>")
        await w.settle()
        more = bodies(await again.receive_all())
        assert {*got, *more} == {*"123456"}


@pytest.mark.one_node
async def test_what_could_not_be_deleted_is_deleted_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(plugins=OFFLINE) as w:
        monkeypatch.setitem(w.plugin("offline")._delete_had.__globals__, "AGAIN_SECONDS", 0.05)
        await store(w, *"123")
        bob, _ = await come(w)
        await bob.receive_all()
        queue, sent = w.plugin("offline").queue, bob.session.managed.sent
        batch, refused = queue.batch, 0

        async def refusing(*key: Any, **about: Any) -> Any:
            nonlocal refused
            refused += 1
            await asyncio.sleep(0.1)  # more is acknowledged meanwhile
            if refused < 2:
                raise StoreUnavailable("not now")
            return await batch(*key, **about)

        monkeypatch.setattr(queue, "batch", refusing)
        for h in (sent - 2, sent - 1, sent):
            bob.write(f"<a xmlns='{ns.SM}' h='{h}'/>")
            for _ in range(20):
                await asyncio.sleep(0.002)
        async for _ in rounds():
            await w.settle()
            if await rows(w) == [] and not w.plugin("offline").held and not w.plugin("offline").had:
                break
        assert await rows(w) == [] and not w.plugin("offline").held and not w.plugin("offline").had
        assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.one_node
async def test_a_plugin_that_was_loaded_again_goes_on() -> None:
    async with World(plugins=OFFLINE) as w:
        await store(w, *"12")
        bob, _ = await come(w)
        await bob.receive_all()
        await w.app.loader.reload("offline", w.config)
        other, _ = await come(w, "other")
        assert bodies(await other.receive_all()) == []
        await bob.send(a(bob))
        await w.settle()
        assert await rows(w) == [] and not w.plugin("offline").held
