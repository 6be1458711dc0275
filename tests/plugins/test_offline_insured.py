"""Messages that no archive has are kept until they are acknowledged: they outlive a kill of the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import chat, world
from killing import Lives, acknowledge, anew, given, lives_in, texts
from managing import managed, resume
from several import several

from xmppd import ns
from xmppd.plugin import StoreError
from xmppd.testing import Client, World

DELAY = f"{{{ns.DELAY}}}delay"
HINT = f"<no-permanent-store xmlns='{ns.HINTS}'/>"
NEVER = f"<prefs xmlns='{ns.MAM}' default='never'/>"
ALL = {"plugins": {"config": {"offline": {"until_acknowledged": True}}}}


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    """Servers on one file, one life behind the other."""
    return lives_in(tmp_path)


async def rows(w: World, node: int = 0) -> list[Any]:
    return list((await w.plugin("offline", node).queue.scan("bob@localhost")).rows)


async def say(client: Client, to: str, text: str, more: str = HINT, kind: str = "chat") -> None:
    await client.send(f"<message to='{to}' type='{kind}' id='{text}'><body>{text}</body>{more}</message>")


@pytest.mark.asyncio
@pytest.mark.own_engine
@pytest.mark.one_node
@pytest.mark.parametrize("has_id", [True, False])
@pytest.mark.parametrize("is_never", [True, False])
async def test_what_no_archive_has_outlives_a_kill(lives: Lives, has_id: bool, is_never: bool) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        if is_never:
            await bob.ask("set", NEVER)
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "0")
        for number in "12":
            await say(alice, "bob@localhost", number, "" if is_never else HINT)
        await say(alice, bob.jid, "3", "" if is_never else HINT)
        got = [one for one in await bob.receive_all() if one.tag.endswith("message")]
        assert texts(got) == ["0", "1", "2", "3"], "in order, whether it is archived or not"
        assert not any(one.findall(DELAY) for one in got), "as they were sent"
        async with lives() as w2:
            again = await anew(w2, "bob", "r" if has_id else "")
            got = await given(again)
            assert texts(got) == ["0", "1", "2", "3"]
            assert all(len(one.findall(DELAY)) == 1 for one in got)
            await acknowledge(again)
            await w2.settle()
            assert await rows(w2) == []


@pytest.mark.asyncio
@pytest.mark.one_node  # what comes from another node is kept there until it is acknowledged
async def test_it_goes_when_it_is_acknowledged() -> None:
    async with world("offline") as w:
        bob, _ = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await say(alice, "bob@localhost", "1")
        assert texts(await bob.receive_all()) == ["1"]
        assert len(await rows(w)) == 1
        assert texts(await given(await w.bind("bob", "other"))) == [], "another device is not given it"
        await acknowledge(bob)
        await w.settle()
        assert await rows(w) == [] and w.plugin("offline").held == {}
        await bob.send("</stream:stream>")
        assert texts(await given(await w.bind("bob", "third"))) == []


@pytest.mark.asyncio
async def test_who_leaves_it_unacknowledged_leaves_it_to_others() -> None:
    async with world("offline") as w:
        bob, _ = await managed(w, "bob", "r")
        await say(await w.login("alice"), "bob@localhost", "1")
        await bob.receive_all()
        other = await w.login("bob", "other")
        await bob.send("</stream:stream>")
        await w.settle()
        assert texts(await other.receive_all()) == ["1"]


@pytest.mark.asyncio
@pytest.mark.one_node
async def test_one_of_several_that_acknowledges_is_enough() -> None:
    async with world("offline") as w:
        bobs = [(await managed(w, "bob", name))[0] for name in "ab"]
        await say(await w.login("alice"), "bob@localhost", "1")
        for bob in bobs:
            assert texts(await bob.receive_all()) == ["1"]
        assert len(await rows(w)) == 1
        await bobs[0].send("</stream:stream>")
        await w.settle()
        assert len(await rows(w)) == 1 and texts(await bobs[1].receive_all()) == []
        await acknowledge(bobs[1])
        await w.settle()
        assert await rows(w) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("more", "kind"),
    [(f"<no-store xmlns='{ns.HINTS}'/>", "chat"), ("", "headline"), (HINT, "headline"), ("", "chat")],
)
async def test_what_is_archived_or_nothing_to_be_stored_has_no_row(more: str, kind: str) -> None:
    async with world("offline") as w:
        bob, _ = await managed(w, "bob", "r")
        await say(await w.login("alice"), "bob@localhost", "1", more, kind)
        assert texts(await bob.receive_all()) == ["1"]
        assert await rows(w) == []


@pytest.mark.asyncio
async def test_who_acknowledges_nothing_has_no_row() -> None:
    async with world("offline") as w:
        bob = await w.login("bob", "r")
        await say(await w.login("alice"), "bob@localhost", "1")
        assert texts(await bob.receive_all()) == ["1"]
        assert await rows(w) == []


@pytest.mark.asyncio
@pytest.mark.one_node
@pytest.mark.parametrize("is_on", [True, False])
async def test_without_an_archive_it_is_as_configured(is_on: bool) -> None:
    async with World(plugins=("offline",), settings=ALL if is_on else {}) as w:
        bob, _ = await managed(w, "bob", "r")
        alice = await w.login("alice")
        assert all(app.hooks.watches_messages is is_on for app in w.apps)
        for number in "123":
            await say(alice, "bob@localhost", number, "")
        assert texts(await bob.receive_all()) == [*"123"]
        assert len(await rows(w)) == (3 if is_on else 0)
        await acknowledge(bob)
        await w.settle()
        assert await rows(w) == []


@pytest.mark.asyncio
@pytest.mark.one_node
async def test_where_there_is_no_room_it_goes_on_as_it_is() -> None:
    settings = {"plugins": {"config": {"offline": {"until_acknowledged": True, "max_messages": 2}}}}
    async with World(plugins=("offline",), settings=settings) as w:
        bob, _ = await managed(w, "bob", "r")
        alice = await w.login("alice")
        for number in "123":
            await say(alice, "bob@localhost", number, "")
        assert texts(await bob.receive_all()) == [*"123"]
        assert len(await rows(w)) == 2


@pytest.mark.asyncio
async def test_a_session_that_moves_takes_its_row_along(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await say(await w.login("alice", node=0), "bob@localhost", "1")
        assert texts(await bob.receive_all()) == ["1"]
        await bob.drop()
        again = await resume(w, bob, id, node=1)
        await w.settle()
        assert texts(await again.receive_all()) == ["1"] and len(await rows(w)) == 1
        await w.advance(30)
        assert len(await rows(w)) == 1, "it is held there"
        await again.receive_all()
        await acknowledge(again)
        await w.settle()
        assert await rows(w) == []


@pytest.mark.asyncio
async def test_what_a_node_left_to_another_is_in_the_queue_when_that_is_killed(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await say(await w.login("alice", node=0), "bob@localhost", "1")
        await bob.drop()
        await w.drain(0)
        [keeper] = [node for node in (1, 2) if w.apps[node].handover.keeps(id)]
        other = 3 - keeper
        w.cut(keeper, other)
        mesh = w.cluster(other).mesh
        mesh.give_up(mesh.members[w.cluster(keeper).mesh.name], "it was killed")
        await w.settle()
        assert texts(await given(await anew(w, "bob", "r2", node=other))) == ["1"]


@pytest.mark.asyncio
@pytest.mark.one_node
@pytest.mark.parametrize("error", [StoreError("down"), ValueError("a bug")])
async def test_without_a_store_it_goes_on_as_it_is(error: Exception) -> None:
    async with World(plugins=("offline",), settings=ALL) as w:
        bob, _ = await managed(w, "bob", "r")

        async def fails(*_: object) -> str:
            raise error

        w.plugin("offline").keep_live = fails
        await say(await w.login("alice"), "bob@localhost", "1", "")
        assert texts(await bob.receive_all()) == ["1"]


@pytest.mark.asyncio
@pytest.mark.one_node
async def test_who_is_blocked_has_no_row() -> None:
    async with World(plugins=("offline", "blocking"), settings=ALL) as w:
        bob, _ = await managed(w, "bob", "r")
        await bob.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='alice@localhost'/></block>")
        await bob.receive_all()
        await say(await w.login("alice"), "bob@localhost", "1", "")
        assert texts(await bob.receive_all()) == [] and await rows(w) == []
