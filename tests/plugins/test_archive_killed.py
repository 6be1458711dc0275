"""A session whose process is killed: what its client had not acknowledged comes from the archive."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from archives import STANZA_ID, chat, find
from killing import Lives, given, lives_in, messages, texts
from managing import SM, ask_to_resume, enable, managed, ready
from sasl2 import identifier, opened, plain, request, tagged

from xmppd import ns
from xmppd.testing import Client, World

pytestmark = [pytest.mark.asyncio, pytest.mark.own_engine, pytest.mark.one_node]

DELAY = f"{{{ns.DELAY}}}delay"


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    """Servers on one file, one life behind the other."""
    return lives_in(tmp_path)


async def come(
    w: World, id: str, user: str = "bob", *, resource: str = "r", h: int = 0, enable: bool = True
) -> Client:
    """He comes back with the id of a session that is not there any more."""
    bob = await ready(w, user)
    assert (await ask_to_resume(bob, id, h)).find(f"{{{ns.STANZA_ERRORS}}}item-not-found") is not None
    await bob.bind(resource)
    if enable:
        await bob.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        await bob.receive()
    return bob


async def test_what_was_not_acknowledged_comes_in_order_stamped_with_the_ids_that_it_had(
    lives: Lives,
) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1", "2")
        await chat(alice, bob.jid, "3")
        before = messages(await bob.receive_all())
        await bob.drop()
        await chat(alice, "bob@localhost", "4")
        async with lives() as w2:
            again = await come(w2, id)
            got = await given(again)
            assert texts(got) == ["1", "2", "3", "4"]
            assert all(len(one.findall(DELAY)) == 1 for one in got)
            ids = [one.find(STANZA_ID).get("id") for one in got]
            assert ids[:3] == [one.find(STANZA_ID).get("id") for one in before]
            assert (await find(again)).ids == ids
            await chat(await w2.login("alice"), "bob@localhost", "5")
            assert texts(await again.receive_all()) == ["5"]
            assert texts(await given(await come(w2, id, resource="other"))) == [], "it comes once"


async def test_what_was_acknowledged_long_ago_does_not_come_again(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await bob.receive_all()
        await bob.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await w.advance(30)
        await chat(alice, "bob@localhost", "2")
        await w.settle()
        async with lives() as w2:
            assert texts(await given(await come(w2, id))) == ["2"]


async def test_who_is_behind_the_mark_is_given_all_and_others_only_theirs(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        carol, carols = await managed(w, "carol", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await chat(alice, "carol@localhost", "c1")
        await bob.drop()
        await carol.receive_all()
        await carol.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await w.advance(60)
        await chat(alice, "bob@localhost", "2")
        await chat(alice, "carol@localhost", "c2")
        await w.advance(30)
        rows = (await w.plugin("archive").behind.scan("bob@localhost")).rows
        assert [row["session"] for row in rows] == [id]
        async with lives() as w2:
            assert texts(await given(await come(w2, id))) == ["1", "2"]
            other = await ready(w2, "carol")
            await ask_to_resume(other, carols, 2)
            await other.bind("r")
            assert texts(await given(other)) == ["c2"]


async def test_a_session_that_ended_properly_left_its_messages_to_the_store(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await bob.drop()
        await w.advance(400)
        assert not w.app.sessions.of("bob@localhost")
        async with lives() as w2:
            assert texts(await given(await come(w2, id))) == ["1"]


async def test_a_process_that_stopped_in_peace_leaves_nothing(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await bob.receive_all()
        await bob.send(f"<a xmlns='{ns.SM}' h='1'/>")
    async with lives() as w2:
        assert texts(await given(await come(w2, id))) == []


async def test_who_asks_the_archive_first_is_given_nothing_twice(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1", "2")
        await bob.drop()
        async with lives() as w2:
            bob = await come(w2, id)
            assert (await find(bob)).texts == ["1", "2"]
            await chat(await w2.login("alice"), "bob@localhost", "3")
            assert texts(await given(bob)) == ["3"]


async def test_it_comes_before_what_was_stored_meanwhile_and_once(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1", "2")
        await bob.drop()
        async with lives() as w2:
            alice = await w2.login("alice")
            await chat(alice, "bob@localhost", "3", "4")
            bob = await come(w2, id)
            assert texts(await given(bob)) == ["1", "2", "3", "4"]
            await bob.send(f"<a xmlns='{ns.SM}' h='{bob.session.managed.sent}'/>")
            await w2.settle()
            assert (await w2.plugin("offline").queue.scan("bob@localhost")).rows == []


async def test_what_waited_and_was_given_and_not_acknowledged_comes_again(lives: Lives) -> None:
    async with lives() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1", "2")
        await w.advance(100)
        bob = await w.bind("bob", "r")
        await bob.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        id = (await bob.receive()).get("id")
        assert texts(await given(bob)) == ["1", "2"]
        await w.settle()
        assert len((await w.plugin("offline").queue.scan("bob@localhost")).rows) == 2
        async with lives() as w2:
            bob = await come(w2, id)
            assert texts(await given(bob)) == ["1", "2"]
            new = bob.session.managed.id
            async with lives() as w3:
                assert texts(await given(await come(w3, new))) == ["1", "2"], "killed again before that"


async def test_what_was_acknowledged_seconds_ago_does_not_come_again_where_all_have_done_so(
    lives: Lives,
) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1", "2")
        await bob.receive_all()
        await bob.send(f"<a xmlns='{ns.SM}' h='{bob.session.managed.sent}'/>")
        await w.advance(5)
        await chat(alice, "bob@localhost", "3")
        await w.settle()
        async with lives() as w2:
            assert texts(await given(await come(w2, id))) == ["3"]


async def test_what_was_not_acknowledged_holds_back_what_is_given_again_of_others(lives: Lives) -> None:
    async with lives() as w:
        _, id = await managed(w, "bob", "r")
        carol, other = await managed(w, "carol", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await w.advance(0.5)
        await chat(alice, "carol@localhost", "2")
        await carol.receive_all()
        await carol.send(f"<a xmlns='{ns.SM}' h='{carol.session.managed.sent}'/>")
        await w.advance(4)  # bob is not behind yet, and nobody knows how far he has got
        async with lives() as w2:
            assert texts(await given(await come(w2, id))) == ["1"]
            assert texts(await given(await come(w2, other, "carol"))) == ["2"]


async def test_rows_go_when_all_is_acknowledged(lives: Lives) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1", "2")
        assert texts(await bob.receive_all()) == ["1", "2"]
        archive = w.plugin("archive")
        await w.advance(20)
        assert len((await archive.behind.scan("bob@localhost")).rows) == 1
        await bob.send(f"<a xmlns='{ns.SM}' h='{bob.session.managed.sent}'/>")
        await w.advance(60)
        assert (await archive.behind.scan("bob@localhost")).rows == [] and archive.progress.rows == {}


@pytest.mark.parametrize(
    ("message", "comes"),
    [
        ("<message to='bob@localhost' type='chat'><body>x</body></message>", True),
        ("<message to='bob@localhost/r' type='normal'><body>x</body></message>", True),
        ("<message to='bob@localhost'><body>x</body><private xmlns='urn:xmpp:carbons:2'/></message>", True),
        (f"<message to='bob@localhost'><body>x</body><no-store xmlns='{ns.HINTS}'/></message>", False),
        ("<message to='bob@localhost' type='headline'><body>x</body></message>", False),
        ("<message to='bob@localhost/other' type='chat'><body>x</body></message>", False),
    ],
)
async def test_only_what_the_archive_has_and_the_session_was_sent(
    lives: Lives, message: str, comes: bool
) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await w.login("bob", "other")
        alice = await w.login("alice")
        await alice.send(message)
        await bob.send("<message to='alice@localhost' type='chat'><body>his own</body></message>")
        await w.settle()
        async with lives() as w2:
            await w2.login("bob", "other")
            assert texts(await given(await come(w2, id))) == (["x"] if comes else [])


async def test_without_stream_management_and_for_other_accounts_nothing_comes(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await bob.receive_all()
        async with lives() as w2:
            assert texts(await given(await w2.bind("bob", "r"))) == []
            carol = await ready(w2, "carol")
            assert (await ask_to_resume(carol, id)).tag == f"{SM}failed"
            await carol.bind("r")
            await enable(carol)
            assert texts(await given(carol)) == []
            assert texts(await given(await come(w2, "unknown", resource="r2"))) == ["1"]


async def test_who_binds_together_with_its_login(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await bob.drop()
        async with lives() as w2:
            bob = await opened(w2)
            resume = f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>"
            bind = tagged("Phone", f"<enable xmlns='{ns.SM}' resume='true'/>")
            await bob.send(request("PLAIN", plain("bob"), resume + bind))
            bob.jid = identifier(await bob.receive())
            assert texts(await given(bob)) == ["1"]


async def test_a_plugin_that_was_loaded_again_goes_on(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await bob.drop()
        await w.advance(30)
        await w.app.loader.reload("archive", w.config)
        await chat(alice, "bob@localhost", "2")
        await w.advance(30)
        await w.app.loader.reload("archive", w.config)
        async with lives() as w2:
            assert texts(await given(await come(w2, id))) == ["1", "2"]


async def test_what_is_slowly_acknowledged_moves_its_row(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        alice = await w.login("alice")
        for number in range(1, 7):
            await chat(alice, "bob@localhost", str(number))
            await w.advance(12)
            await bob.receive_all()
            await bob.send(f"<a xmlns='{ns.SM}' h='{number - 1}'/>")
        await w.advance(4)
        async with lives() as w2:
            got = texts(await given(await come(w2, id)))
            assert got[-1] == "6" and len(got) <= 2


async def test_a_blocked_sender_stays_blocked(lives: Lives) -> None:
    async with lives("blocking") as w:
        bob, id = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await chat(await w.login("carol"), "bob@localhost", "2")
        await bob.send(
            f"<iq type='set' id='b'><block xmlns='{ns.BLOCKING}'><item jid='alice@localhost'/></block></iq>"
        )
        await w.settle()
        async with lives("blocking") as w2:
            assert texts(await given(await come(w2, id))) == ["2"]


@pytest.mark.parametrize("count", [3, 7])
async def test_what_waits_since_before_the_mark_comes_before_what_was_missed(
    lives: Lives, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    said = [str(number) for number in range(count)]
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await bob.send("<presence type='unavailable'/>")
        alice = await w.login("alice")
        await alice.send(
            "".join(f"<message to='bob@localhost'><body>{text}</body></message>" for text in said)
        )
        await w.settle()
        found = (await find(await w.bind("bob", "looker"))).ids
        assert len(found) == count
        archive = w.plugin("archive")
        ids = sys.modules[f"{type(archive).__module__}.ids"]
        await archive._write_mark(ids.bound(ids.at_of(ids.from_text(found[2]))))
        async with lives() as w2:
            monkeypatch.setattr(sys.modules[type(w2.plugin("offline")).__module__], "PAGE", 1)
            assert texts(await given(await come(w2, id))) == said
            assert texts(await given(await come(w2, id, resource="other"))) == [], "it comes once"


async def test_what_was_missed_is_found_though_what_waits_begins_later(lives: Lives) -> None:
    async with lives() as w:
        bob, id = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1", "2")
        assert texts(await bob.receive_all()) == ["1", "2"]
        async with lives() as w2:
            offline = w2.plugin("offline")
            await offline.oldest("bob@localhost", 1)
            (floor,) = offline.floors.of("bob@localhost")
            assert texts(await given(await come(w2, id))) == ["1", "2"]
            assert offline.floors.of("bob@localhost") < (floor,)
