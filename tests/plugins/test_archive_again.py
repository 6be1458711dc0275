"""What a client sends again when it comes back, not knowing that it was taken, is archived once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from archives import BODY, STANZA_ID, chat, find, world
from gates import Gate, go_on
from managing import ASK, SM, ask_to_resume, enable, managed, ready, resume
from patience import until
from several import several

from xmppd import ns
from xmppd.plugin import StoreError
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

DELAY = f"{{{ns.DELAY}}}delay"
NODES = pytest.mark.parametrize("nodes", [1, 2])


class Held:
    """The archive of a node writes nothing from now on until it is let go."""

    def __init__(self, w: World, node: int = 0) -> None:
        self.world = w
        self.archive = w.plugin("archive", node)
        self.file = self.archive._file
        self.held: list[Callable[[], Any]] = []
        self.archive._file = lambda *about: self.held.append(partial(self.file, *about))

    async def let_go(self) -> None:
        self.archive._file = self.file
        for file in self.held:
            file()
        await self.world.settle()


def slow_look(archive: Any) -> tuple[Callable[..., Any], asyncio.Event]:
    """An archive looks for what was sent before only when that is set; and how it looked."""
    look, gate = archive._last_of, asyncio.Event()

    async def slow(*about: Any) -> Any:
        await gate.wait()
        return await look(*about)

    archive._last_of = slow
    return look, gate


async def kill(w: World, node: int) -> None:
    """A node is gone without a word, and the other knows."""
    other = w.cluster(1 - node)
    w.cut(0, 1)
    other.mesh.give_up(other.mesh.members[w.cluster(node).mesh.name], "it was killed")
    await w.settle()


async def move(w: World, old: Client, id: str, node: int) -> Client:
    """A client resumes a session while something that it sent is under way, which is not waited for."""
    new = await ready(w, "alice", node=node)
    new.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
    await w.settle()
    await new.expect_nothing()
    await w.advance(2.1)
    answer = await new.receive()
    assert answer.tag == f"{SM}resumed" and answer.get("h") == "0"
    new.jid = old.jid
    return new


async def come(w: World, id: str, node: int) -> Client:
    """Alice comes back, and her session is not to be had."""
    new = await ready(w, "alice", node=node)
    assert (await ask_to_resume(new, id)).tag == f"{SM}failed"
    await new.bind("new")
    await enable(new)
    await new.send("<presence/>")
    await new.receive_all()
    return new


async def say(w: World, client: Client, *texts: str) -> None:
    await chat(client, "bob@localhost", *texts)
    await w.settle()


async def acknowledged(client: Client) -> int:
    await client.send(ASK)
    return int([one for one in await client.receive_all() if one.tag == f"{SM}a"][-1].get("h", ""))


def messages(stanzas: list[Element]) -> list[Element]:
    return [one for one in stanzas if one.findtext(BODY)]


def texts(stanzas: list[Element]) -> list[str | None]:
    return [one.findtext(BODY) for one in messages(stanzas)]


def ids(stanzas: list[Element]) -> list[str | None]:
    return [found.get("id") for one in messages(stanzas) if (found := one.find(STANZA_ID)) is not None]


@NODES
@pytest.mark.parametrize("bobs", [0, -1])
async def test_what_is_under_way_when_she_resumes_is_not_archived_again(
    redis_url: str, nodes: int, bobs: int
) -> None:
    async with world("offline", nodes=nodes, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=bobs % nodes)
        await alice.receive_all()
        held = Held(w)
        await say(w, alice, "1", "2")
        await alice.drop()
        alice = await move(w, alice, id, nodes - 1)
        await say(w, alice, "1", "2", "3")
        await bob.expect_nothing()
        await held.let_go()
        got = await bob.receive_all()
        assert texts(got) == ["1", "2", "3"]
        assert await acknowledged(alice) == 3
        assert (await find(bob)).ids == (await find(alice)).ids == ids(got)
        await say(w, alice, "1")
        assert texts(await bob.receive_all()) == ["1"], "a third time is a new one"


@pytest.mark.one_node("has nodes of its own, and counts the calls of a store that is SQLite")
@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("call", range(3))
async def test_what_was_not_begun_where_she_was_is_begun_where_she_is(
    redis_url: str, is_there: bool, call: int
) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=1)
        if not is_there:
            await bob.drop()
        await w.settle()
        gate = Gate(w, 0)
        gate.shut(call)
        for text in ("1", "2", "3"):
            alice.write(f"<message to='bob@localhost' id='{text}' type='chat'><body>{text}</body></message>")
        await until(lambda: gate.is_reached, lambda: go_on(w))
        await alice.drop()
        alice = await move(w, alice, id, 1)
        for text in ("1", "2", "3", "4"):
            alice.write(f"<message to='bob@localhost' id='{text}' type='chat'><body>{text}</body></message>")
        await go_on(w)
        gate.open()
        await w.settle()
        if not is_there:
            bob = await w.bind("bob", node=1)
            await bob.send("<presence/>")
        assert texts(await bob.receive_all()) == ["1", "2", "3", "4"]
        assert await acknowledged(alice) == 4


async def test_what_came_to_nothing_with_a_killed_node_is_new(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=1)
        Held(w)
        await say(w, alice, "1")
        await alice.drop()
        alice = await move(w, alice, id, 1)
        await say(w, alice, "1")
        await bob.expect_nothing()
        await kill(w, 0)
        got = await bob.receive_all()
        assert texts(got) == ["1"] and got[-1].find(DELAY) is None
        assert (await find(bob)).ids == (await find(alice)).ids == ids(got)


async def test_what_a_killed_node_had_written_goes_on_by_the_id_that_it_has(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=1)
        w.plugin("archive", 0).filer._wrote = lambda *about: None
        await say(w, alice, "1")
        await alice.drop()
        alice = await move(w, alice, id, 1)
        await say(w, alice, "1")
        await bob.expect_nothing()
        await kill(w, 0)
        got = await bob.receive_all()
        assert texts(got) == ["1"] and len(got[-1].findall(DELAY)) == 1
        assert (await find(bob)).ids == (await find(alice)).ids == ids(got)
        assert await acknowledged(alice) == 2


@pytest.mark.one_node("has nodes of its own")
@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("node", [1, 2])
async def test_what_a_killed_node_had_written_and_the_next_one_never_began_goes_on(
    redis_url: str, node: int, *, is_over: bool
) -> None:
    """She resumes, or cannot, while the next one still looks for it; which is there, and did nothing."""
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=2)
        w.plugin("archive", 0).filer._wrote = lambda *about: None
        await say(w, alice, "1")
        await alice.drop()
        for other in (1, 2):
            w.cut(0, other)
            mesh = w.cluster(other).mesh
            mesh.give_up(mesh.members[w.cluster(0).mesh.name], "it was killed")
        await w.settle()
        alice = await ready(w, "alice", node=1)
        await ask_to_resume(alice, id)
        await alice.bind("r")
        id = await enable(alice)
        archive = w.plugin("archive", 1)
        look, gate = slow_look(archive)
        await say(w, alice, "1")
        archive._last_of = look
        if is_over:
            w.apps[1].binding.end(w.apps[1].sessions.by_full[alice.jid])
            await w.settle()
            alice = await come(w, id, node)
        else:
            await alice.drop()
            alice = await move(w, alice, id, node)
        await say(w, alice, "1")
        gate.set()
        await w.settle()
        got = await bob.receive_all()
        assert texts(got) == ["1"]
        assert (await find(bob)).ids == (await find(alice)).ids == ids(got)


@pytest.mark.parametrize("how", ["politely", "cut"])
async def test_what_is_sent_again_by_who_leaves_before_it_is_known_is_there_once(
    redis_url: str, how: str
) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=1)
        w.plugin("archive", 0).filer._wrote = lambda *about: None
        await say(w, alice, "1")
        await alice.drop()
        await kill(w, 0)
        alice = await come(w, id, 1)
        _, gate = slow_look(w.plugin("archive", 1))
        await say(w, alice, "1")
        await bob.expect_nothing()
        if how == "politely":
            await alice.send("</stream:stream>")
        else:
            server = w.apps[1].server
            [session] = server.sessions("alice@localhost")
            server.end_session(session, "policy-violation")
        await w.settle()
        gate.set()
        await w.settle()
        assert len((await find(bob)).ids) == 1
        await w.advance(90)
        doubts = w.plugin("archive", 1)._doubts
        assert not any(session.account == "alice@localhost" for session in doubts)


async def test_what_is_sent_again_since_a_node_was_killed_has_the_same_id(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=1)
        origin = (
            "<message to='bob@localhost'><body>2</body><origin-id xmlns='urn:xmpp:sid:0' id='a'/></message>"
        )
        nameless = "<message to='bob@localhost'><body>3</body></message>"
        for _ in range(2):
            await say(w, alice, "1")
            await alice.send(origin + nameless)
            if not alice.transport.is_closing() and w.clients[-1] is not alice:
                await kill(w, 0)
                alice = await come(w, id, 1)
        got = await bob.receive_all()
        assert texts(got) == ["1", "2", "3"] * 2
        assert ids(got)[:2] == ids(got)[3:5] and len({*ids(got)}) == 4
        assert [len(one.findall(DELAY)) for one in messages(got)] == [0, 0, 0, 1, 1, 0]
        assert (await find(bob)).ids == (await find(alice)).ids == [*ids(got)[:3], ids(got)[5]]


@NODES
async def test_what_a_session_had_sent_that_ended_is_not_given_again(redis_url: str, nodes: int) -> None:
    async with world("offline", nodes=nodes, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=0)
        await say(w, alice, "1")
        assert texts(await bob.receive_all()) == ["1"]
        await alice.drop()
        await w.advance(310)
        bob = await w.login("bob", node=0)
        alice = await come(w, id, nodes - 1)
        await say(w, alice, "1", "2")
        assert texts(await bob.receive_all()) == ["2"]
        assert len((await find(bob)).ids) == len((await find(alice)).ids) == 2


@NODES
async def test_after_ten_minutes_it_is_a_new_one(redis_url: str, nodes: int) -> None:
    async with world("offline", nodes=nodes, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        bob = await w.login("bob", node=0)
        await say(w, alice, "1")
        assert texts(await bob.receive_all()) == ["1"]
        await alice.drop()
        await w.advance(601)
        bob = await w.login("bob", node=0)
        alice = await come(w, id, nodes - 1)
        await say(w, alice, "1")
        assert texts(await bob.receive_all()) == ["1"]
        assert w.plugin("archive", nodes - 1).doubts
        await alice.send("</stream:stream>")
        await w.advance(61)
        assert not w.plugin("archive", nodes - 1).doubts


async def test_what_could_not_be_queued_where_it_was_archived_is_queued_when_it_comes_again(
    redis_url: str,
) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        await (await w.login("alice", "other", node=1)).receive_all()
        held, offline = Held(w), w.plugin("offline", 0)

        async def fail(*about: Any) -> None:
            raise StoreError("it is away")

        offline._put = fail
        await say(w, alice, "1")
        await alice.drop()
        alice = await move(w, alice, id, 1)
        await say(w, alice, "1")
        await held.let_go()
        assert await acknowledged(alice) == 1
        bob = await w.login("bob", node=1)
        await w.settle()
        assert bob.raw.count(b"<body>1</body>") == 1
        assert len((await find(bob)).ids) == len((await find(alice)).ids) == 1


async def test_who_lost_nothing_is_not_in_doubt(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice, id = await managed(w, "alice", "r", node=0)
        await say(w, alice, "1")
        await alice.drop()
        for node in (1, 1, 0):
            alice = await resume(w, alice, id, node=node)
            await alice.drop()
        assert not any(archive.doubts for archive in w.plugins("archive"))


@NODES
async def test_where_its_sender_keeps_no_archive_that_of_its_receiver_tells(
    redis_url: str, nodes: int
) -> None:
    settings = several(redis_url) if nodes > 1 else {}
    async with world("offline", nodes=nodes, settings=settings) as w:
        alice = await w.login("alice", "r", node=0)
        await alice.ask("set", f"<prefs xmlns='{ns.MAM}' default='never'/>")
        id = await enable(alice)
        held = Held(w)
        await chat(alice, "bob@localhost", "1", "2")
        again = await move(w, alice, id, nodes - 1)
        await held.let_go()
        await chat(again, "bob@localhost", "1", "2", "3")
        await chat(again, "carol@localhost", "1")
        await w.settle()
        bob = await w.login("bob", node=0)
        assert (await find(bob)).texts == ["1", "2", "3"]
        assert (await find(await w.login("carol", node=0))).texts == ["1"]
        assert (await find(again)).texts == []
