"""A managed session on one of two nodes, which is killed: what came from its own node is in the archive."""

from __future__ import annotations

import asyncio
from xml.etree.ElementTree import Element

import pytest
from archives import BODY, STANZA_ID, chat, find, world
from killing import acknowledge, anew
from managing import ask_to_resume, enable, managed, ready, resume
from patience import rounds
from several import several

from plugins.archive.ids import bound, from_text
from plugins.archive.missed import NOTHING
from xmppd import ns
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

MESSAGE = f"{{{ns.CLIENT}}}message"


async def kill(w: World, node: int) -> None:
    """A node is gone without a word, and the other knows."""
    other = w.cluster(1 - node)
    w.cut(0, 1)
    other.mesh.give_up(other.mesh.members[w.cluster(node).mesh.name], "it was killed")
    await w.settle()


async def lose(w: World, node: int, *others: int) -> None:
    """The same, of several that are left."""
    for other in others:
        w.cut(node, other)
        mesh = w.cluster(other).mesh
        mesh.give_up(mesh.members[w.cluster(node).mesh.name], "it was killed")
    await w.settle()


async def nothing(*_: object) -> list[tuple[bytes, bytes]]:
    return []


async def come(w: World, node: int, id: str) -> Client:
    """Bob comes back with the id of a session that is not to be had."""
    bob = await ready(w, "bob", node=node)
    assert (await ask_to_resume(bob, id)).find(f"{{{ns.STANZA_ERRORS}}}item-not-found") is not None
    await bob.bind("r")
    await enable(bob)
    return bob


def texts(stanzas: list[Element]) -> list[str]:
    return [body for one in stanzas if one.tag == MESSAGE and (body := one.findtext(BODY))]


async def given(bob: Client) -> list[str]:
    await bob.receive_all()
    await bob.send("<presence/>")
    return texts(await bob.receive_all())


async def is_refused(w: World, client: Client) -> None:
    """There is no session to resume, as far as is known before the loss of its node is noticed."""
    answers: list[Element] = []
    for _ in range(18):
        await w.advance(0.25)
        if answers := await client.receive_all():
            break
    async for _ in rounds():  # the store takes its time
        if answers:
            break
        answers = await client.receive_all()
    assert [one.find(f"{{{ns.STANZA_ERRORS}}}item-not-found") is not None for one in answers] == [True]


async def test_what_a_sender_on_the_killed_node_sent_comes_on_the_other(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        alice = await w.login("alice", node=0)
        await chat(alice, "bob@localhost", "1", "2")
        await chat(alice, bob.jid, "3")
        assert texts(await bob.receive_all()) == ["1", "2", "3"]
        await kill(w, 0)
        again = await come(w, 1, id)
        assert await given(again) == ["1", "2", "3"]
        await chat(await w.login("alice", node=1), "bob@localhost", "4")
        assert texts(await again.receive_all()) == ["4"]


async def test_what_senders_on_both_nodes_sent_comes_once(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        here, there = await w.login("alice", node=0), await w.login("carol", node=1)
        for number in range(4):
            await chat(here, "bob@localhost", f"here {number}")
            await chat(there, "bob@localhost", f"there {number}")
            await w.settle()
        assert len(texts(await bob.receive_all())) == 8
        await kill(w, 0)
        got = await given(await come(w, 1, id))
        assert sorted(got) == sorted(f"{who} {number}" for number in range(4) for who in ("here", "there"))
        for who in ("here", "there"):
            assert [text for text in got if text.startswith(who)] == [
                f"{who} {number}" for number in range(4)
            ]


async def test_who_comes_before_the_loss_is_noticed_is_given_it_then(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        await bob.receive_all()
        w.cut(0, 1)
        again = await ready(w, "bob", node=1)
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await is_refused(w, again)
        await again.bind("r2")
        await enable(again)
        got = await given(again)
        await w.advance(20)
        got += texts(await again.receive_all())
        assert got == ["1"]


async def test_a_session_that_moved_and_whose_new_node_is_killed(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        alice = await w.login("alice", node=1)
        await chat(alice, "bob@localhost", "1")
        await bob.receive_all()
        await bob.drop()
        bob = await resume(w, bob, id, 0, node=1)
        await w.advance(60)
        await chat(alice, "bob@localhost", "2")
        await bob.receive_all()
        await w.settle()
        await kill(w, 1)
        assert await given(await come(w, 0, id)) == ["1", "2"]


async def test_a_session_that_ended_on_a_node_that_is_there_is_not_looked_for(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        await bob.receive_all()
        await bob.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await bob.send("</stream:stream>")
        await w.settle()
        again = await come(w, 1, id)
        assert await given(again) == []
        await w.advance(60)
        await kill(w, 0)
        await w.advance(5)
        assert texts(await again.receive_all()) == []


async def test_ids_of_what_comes_again_are_those_it_had(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        [first] = [one for one in await bob.receive_all() if one.tag == MESSAGE]
        await kill(w, 0)
        again = await come(w, 1, id)
        await again.receive_all()
        await again.send("<presence/>")
        [second] = [one for one in await again.receive_all() if one.tag == MESSAGE and one.findtext(BODY)]
        ids = [one.find(STANZA_ID) for one in (first, second)]
        assert ids[0] is not None and ids[1] is not None and ids[0].get("id") == ids[1].get("id")
        assert second.find(f"{{{ns.DELAY}}}delay") is not None
        await asyncio.sleep(0)


async def test_of_two_sessions_that_end_at_one_moment_both_may_store_it_and_it_comes_once(
    redis_url: str,
) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bobs = [(await managed(w, "bob", f"r{node}", node=node))[0] for node in (0, 1)]
        await chat(await w.login("alice", node=0), "bob@localhost", *"12345")
        for bob in bobs:
            assert texts(await bob.receive_all()) == [*"12345"]
        sessions = [(bob.app, bob.session) for bob in bobs]
        for bob in bobs:
            await bob.drop()
        for app, session in sessions:
            app.binding.end(session)
        await w.settle()
        again = await w.bind("bob", "r2", node=0)
        assert await given(again) == [*"12345"]


async def test_a_mark_does_not_pass_what_was_given_to_a_node_that_has_not_said_to_have_it(
    redis_url: str,
) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        [first] = [one for one in await bob.receive_all() if one.tag == MESSAGE]
        assert await w.apps[0].handover.give(id, "bob@localhost", 0) is not None
        archive = w.plugin("archive", 0)
        w.skews[:] = [skew + 9.0 for skew in w.skews]  # what is given is kept for 10 s by another clock
        await archive.note_how_far()
        stanza_id = first.find(STANZA_ID)
        assert stanza_id is not None
        known = from_text(stanza_id.get("id", ""))
        assert known is not None and archive.progress.mark <= known
        await w.advance(20)
        await archive.note_how_far()
        assert archive.progress.mark > known


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_who_comes_without_an_id_is_given_it(redis_url: str, is_noticed: bool) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, _ = await managed(w, "bob", "r", node=0)
        alice = await w.login("alice", node=0)
        await chat(alice, "bob@localhost", "1", "2")
        await chat(bob, "carol@localhost", "3")
        await w.settle()
        if is_noticed:
            await kill(w, 0)
        w.cut(0, 1)
        again = await anew(w, "bob", "r2", node=1)
        got = await given(again)
        if not is_noticed:
            assert got == []
            await kill(w, 0)
            await w.advance(1)
            got = texts(await again.receive_all())
        assert got == ["1", "2"]
        await chat(again, "carol@localhost", "3")
        await acknowledge(again)
        assert await given(await anew(w, "bob", "r3", node=1)) == []
        assert (await find(await w.login("carol", node=1))).texts == ["3"], "it is known that it comes again"


async def test_while_all_are_there_nobody_has_missed_anything(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        await w.advance(60)
        for node in (0, 1):
            assert w.plugin("archive", node)._dead == {}
        again = await anew(w, "bob", "r2", node=1)
        assert again.session.login.sought == "" and await given(again) == []


async def test_who_comes_before_the_loss_is_noticed_is_given_it_if_his_new_node_is_lost_too(
    redis_url: str,
) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        await bob.receive_all()
        await w.advance(5)
        for other in (1, 2):
            w.cut(0, other)
        bob = await ready(w, "bob", node=1)
        bob.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await is_refused(w, bob)
        await bob.bind("r2")
        second = await enable(bob)
        await given(bob)
        assert bob.session.login.sought == id, "it is not known yet"
        for other in (0, 2):
            w.cut(1, other)
        mesh = w.cluster(2).mesh
        for node in (0, 1):
            mesh.give_up(mesh.members[w.cluster(node).mesh.name], "it was killed")
        await w.settle()
        assert await given(await come(w, 2, second)) == ["1"]


@pytest.mark.parametrize("with_id", [True, False])
async def test_what_is_still_looked_for_is_looked_for_again_where_his_new_node_is_lost_too(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, *, with_id: bool
) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        await bob.receive_all()
        await w.advance(5)
        await lose(w, 0, 1, 2)
        monkeypatch.setattr(w.plugin("archive", 1), "_last", nothing)  # it is lost before it has found it
        bob = await ready(w, "bob", node=1)
        if with_id:
            await ask_to_resume(bob, id)
        await bob.bind("r")
        second = await enable(bob)
        monkeypatch.setattr(w.plugin("archive", 1), "has_covered", lambda _: None)
        assert await given(bob) == []
        await w.advance(12)
        await lose(w, 1, 2)
        assert await given(await come(w, 2, second)) == ["1"]


async def test_a_row_stays_while_what_it_covers_is_about_to_be_given(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        alice, archive = await w.login("alice", node=0), w.plugin("archive", 0)
        await archive.cover(bob.session, bound(archive.server.ids.time.read() - 60_000_000))
        await chat(alice, "bob@localhost", "1")
        await bob.receive_all()
        before = await archive.behind.get("bob@localhost", id)
        for seconds, is_there in ((9, True), (15, False)):
            await w.advance(seconds)
            row = await archive.behind.get("bob@localhost", id)
            assert (row["point"] == before["point"]) is is_there


async def test_what_was_found_and_kept_is_not_looked_for_once_more(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await chat(await w.login("alice", node=0), "bob@localhost", "1")
        await bob.receive_all()
        await kill(w, 0)
        again, archive = await come(w, 1, id), w.plugin("archive", 1)
        assert await given(again) == ["1"]
        await acknowledge(again)
        await w.advance(5)
        assert [row["point"] for row in (await archive.behind.scan("bob@localhost")).rows] == [NOTHING]


async def test_what_goes_on_by_an_old_id_is_covered_by_a_row(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        _, id = await managed(w, "bob", "r", node=0)
        archive, there = w.plugin("archive", 0), w.plugin("archive", 1)
        await w.advance(10)
        old = bound(w.apps[0].ids.time.read() - 5_000_000)
        assert archive.progress.mark > old
        there.is_given_again("bob@localhost", old)
        await w.settle()
        [row] = (await archive.behind.scan("bob@localhost")).rows
        assert (row["session"], row["point"]) == (id, old)
        there.is_given_again("bob@localhost", bound(w.apps[0].ids.time.read()))
        await w.settle()
        assert (await archive.behind.scan("bob@localhost")).rows == [row]
