"""Clients whose process was killed and that come back without the id of their session: what they had not
acknowledged comes from the archive.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import STANZA_ID, chat, find
from killing import Lives, acknowledge, anew, given, lives_in, messages, texts
from managing import ask_to_resume, enable, managed, ready

from plugins.archive import again
from xmppd import ns

pytestmark = [pytest.mark.asyncio, pytest.mark.own_engine, pytest.mark.one_node]

DELAY = f"{{{ns.DELAY}}}delay"


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    """Servers on one file, one life behind the other."""
    return lives_in(tmp_path)


@pytest.mark.parametrize("resource", ["r", "other"])
@pytest.mark.parametrize("more", [" resume='true'", ""])
async def test_what_was_not_acknowledged_comes_once(lives: Lives, resource: str, more: str) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await chat(alice, bob.jid, "2")
        before = messages(await bob.receive_all())
        async with lives() as w2:
            alice = await w2.login("alice")
            await chat(alice, "bob@localhost", "3")
            again = await anew(w2, "bob", resource, more)
            got = await given(again)
            assert texts(got) == ["1", "2", "3"]
            assert all(len(one.findall(DELAY)) == 1 for one in got)
            assert [one.find(STANZA_ID).get("id") for one in got[:2]] == [
                one.find(STANZA_ID).get("id") for one in before
            ]
            await chat(alice, "bob@localhost", "4")
            assert texts(await again.receive_all()) == ["4"]
            await acknowledge(again)
            for name in (resource, "third"):
                assert texts(await given(await anew(w2, "bob", name))) == [], "it comes once"
            async with lives() as w3:
                assert texts(await given(await anew(w3, "bob", "r4")))[-1:] == ["4"], "killed again"


async def test_what_was_acknowledged_long_ago_does_not_come(lives: Lives) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await bob.receive_all()
        await bob.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await w.advance(30)
        await chat(alice, "bob@localhost", "2")
        await w.settle()
        async with lives() as w2:
            assert texts(await given(await anew(w2, "bob", "r"))) == ["2"]


async def test_in_peace_nothing_is_missed(lives: Lives) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await bob.receive_all()
        await bob.send(f"<a xmlns='{ns.SM}' h='1'/>")
    async with lives() as w2:
        assert w2.plugin("archive")._dead == {}
        bob = await anew(w2, "bob", "r")
        assert bob.session.login.sought == ""
        assert texts(await given(bob)) == []


@pytest.mark.parametrize("resource", ["slow", "another"])
async def test_what_a_session_has_that_is_behind_its_mark_comes(lives: Lives, resource: str) -> None:
    async with lives() as w:
        bob = await w.login("bob", "slow")
        await enable(bob, "")  # it cannot be resumed, and acknowledges nothing
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await w.advance(30)
        await chat(alice, "bob@localhost", "2")
        await w.advance(20)
        async with lives() as w2:
            assert texts(await given(await anew(w2, "bob", resource))) == ["1", "2"]


async def test_who_has_the_resource_of_one_that_was_behind_is_given_what_that_has_though_another_came_first(
    lives: Lives,
) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "1")
        await bob.drop()
        await w.advance(30)
        async with lives() as w2:
            first = await anew(w2, "bob", "first")
            assert texts(await given(first)) == ["1"]
            await acknowledge(first)
            assert texts(await given(await anew(w2, "bob", "second"))) == []
            again = await anew(w2, "bob", "r")
            assert texts(await given(again)) == ["1"]
            await acknowledge(again)
            assert texts(await given(await anew(w2, "bob", "r"))) == []


async def test_each_device_that_comes_with_its_id_is_given_all_before_another_acknowledges(
    lives: Lives,
) -> None:
    async with lives() as w:
        ids = [(await managed(w, "bob", name))[1] for name in ("a", "b")]
        await chat(await w.login("alice"), "bob@localhost", "1", "2")
        await w.settle()
        async with lives() as w2:
            bobs = []
            for name, id in zip("ab", ids, strict=True):
                bob = await ready(w2, "bob")
                await ask_to_resume(bob, id)
                await bob.bind(name)
                await enable(bob)
                assert texts(await given(bob)) == ["1", "2"]
                bobs.append(bob)
            queue = w2.plugin("offline").queue
            assert len((await queue.scan("bob@localhost")).rows) == 4
            for bob in bobs:
                await acknowledge(bob)
            await w2.settle()
            assert (await queue.scan("bob@localhost")).rows == []
            for name in "ca":  # one of another name finds in the archive what others have acknowledged
                assert texts(await given(await anew(w2, "bob", name))) == []


async def test_who_asks_the_archive_first_is_given_nothing_twice(lives: Lives) -> None:
    async with lives() as w:
        await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1", "2")
        await w.settle()
        async with lives() as w2:
            bob = await anew(w2, "bob", "r2")
            assert (await find(bob)).texts == ["1", "2"]
            await chat(await w2.login("alice"), "bob@localhost", "3")
            assert texts(await given(bob)) == ["3"]


async def test_who_does_not_acknowledge_leaves_it_to_others(lives: Lives) -> None:
    async with lives() as w:
        await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await w.settle()
        async with lives() as w2:
            bob = await w2.bind("bob", "desk")
            assert texts(await given(bob)) == []
            phone = await anew(w2, "bob", "phone")
            assert texts(await given(phone)) == ["1"]
            await acknowledge(phone)
            await bob.receive_all()
            await enable(bob)  # late, and after another one
            assert texts(await given(bob)) == []


async def test_what_it_sends_again_is_archived_once(lives: Lives) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        await chat(bob, "alice@localhost", "1")
        await w.settle()
        async with lives() as w2:
            bob = await anew(w2, "bob", "r2")
            await bob.send("<presence/>")
            await chat(bob, "alice@localhost", "1", "2")
            await w2.settle()
            assert (await find(await w2.login("alice"))).texts == ["1", "2"]


async def test_it_is_known_behind_much_that_came_since(lives: Lives) -> None:
    async with lives() as w:
        bob, _ = await managed(w, "bob", "r")
        await chat(bob, "carol@localhost", "1", "2")
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", *map(str, range(again.PAGE + 50)))
        await chat(bob, "carol@localhost", "3")
        await w.settle()
        async with lives() as w2:
            bob = await anew(w2, "bob", "r2")
            await bob.send("<presence/>")
            await chat(bob, "carol@localhost", "1", "2", "3", "4")
            await w2.settle()
            assert (await find(await w2.login("carol"))).texts == ["1", "2", "3", "4"]


async def test_what_an_old_process_left_is_no_reason_to_look_at_what_came_since(lives: Lives) -> None:
    async with lives() as w:
        await managed(w, "bob", "r")
        await chat(await w.login("alice"), "bob@localhost", "1")
        await w.settle()
        async with lives() as w2:
            await w2.advance(300)
            alice, bob = await w2.login("alice"), await w2.login("bob", "plain")
            await chat(alice, "bob@localhost", "2")
            assert texts(await bob.receive_all()) == ["2"]
            assert texts(await given(await anew(w2, "bob", "r2"))) == ["1"]
