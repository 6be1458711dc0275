"""What waits and is in an archive waits as its id alone, and comes from there (XEP-0160, 0313, 0359)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from archives import BODY, STANZA_ID, chat, field, find, form, page, world
from patience import rounds

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

DELAY = f"{{{ns.DELAY}}}delay"


async def kept(w: World) -> list[dict[str, Any]]:
    return [*(await w.plugin("offline").queue.scan("bob@localhost")).rows]


async def said(client: Client) -> list[str]:
    found = await client.receive_all()
    return [body for stanza in found if (body := stanza.findtext(BODY))]


async def come(client: Client) -> list[str]:
    """What somebody is given who becomes available."""
    await client.receive_all()
    await client.send("<presence/>")
    return await said(client)


async def test_it_waits_as_an_id_and_comes_stamped_with_the_id_that_it_has_in_the_archive() -> None:
    async with world("offline") as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        [row] = await kept(w)
        assert row["stanza"] is None and row["ref"]
        bob = await w.bind("bob")
        await bob.send("<presence/>")
        [given] = [stanza for stanza in await bob.receive_all() if stanza.findtext(BODY)]
        [delay], [stanza_id] = given.iterfind(DELAY), given.iterfind(STANZA_ID)
        assert delay.get("from") == "localhost"
        assert (stanza_id.get("by"), stanza_id.get("id")) == ("bob@localhost", row["ref"])
        assert given.get("from") == alice.jid and given.get("to") == "bob@localhost"
        assert (await find(bob)).ids == [row["ref"]] and await kept(w) == []


@pytest.mark.one_node  # what is read is held up on the node of the receiver
@pytest.mark.parametrize("resource", ["", "/r"])
async def test_what_comes_while_it_is_looked_for_what_waits_is_given_to_who_takes_it_then(
    resource: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world("offline") as w:
        alice, bob = await w.login("alice"), await w.bind("bob", "r")
        queue = w.plugin("offline").queue
        scan, goes_on = queue.scan, asyncio.Event()

        async def held_up(*key: Any, **about: Any) -> Any:
            await goes_on.wait()
            return await scan(*key, **about)

        monkeypatch.setattr(queue, "scan", held_up)
        await bob.send("<presence/>")
        await chat(alice, f"bob@localhost{resource}", "one")
        assert await said(bob) == []
        goes_on.set()
        await w.settle()
        assert await said(bob) == ["one"] and await kept(w) == []


async def test_what_is_in_no_archive_waits_itself_and_all_keep_their_order() -> None:
    async with world("offline") as w:
        alice = await w.login("alice")
        hint = f"<no-permanent-store xmlns='{ns.HINTS}'/>"
        for text, more in (("one", ""), ("two", hint), ("three", "")):
            await alice.send(f"<message to='bob@localhost' type='chat'><body>{text}</body>{more}</message>")
        await alice.receive_all()
        assert [row["stanza"] is None for row in await kept(w)] == [True, False, True]
        assert await come(await w.bind("bob")) == ["one", "two", "three"]


async def test_who_has_asked_the_archive_first_is_given_nothing_twice() -> None:
    async with world("offline") as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one", "two")
        bob = await w.bind("bob")
        assert (await find(bob)).texts == ["one", "two"]
        await chat(alice, "bob@localhost", "three")
        assert await come(bob) == ["three"], "that came after it had asked"
        assert await kept(w) == []


@pytest.mark.parametrize(
    ("inner", "left"),
    [
        (page("<max>2</max>"), ["three", "four"]),
        (page("<max>2</max><before/>"), ["one", "two"]),
        (page("<max>0</max>"), ["one", "two", "three", "four"]),
        (form(field("with", "alice@localhost")), ["one", "two", "three", "four"]),
        (page("<max>4</max>"), []),
    ],
)
async def test_what_a_page_did_not_have_comes(inner: str, left: list[str]) -> None:
    async with world("offline") as w:
        await chat(await w.login("alice"), "bob@localhost", "one", "two", "three", "four")
        bob = await w.bind("bob")
        await find(bob, inner)
        assert await come(bob) == left
        assert await kept(w) == []


async def test_who_asks_afterwards_is_given_all_that_waits() -> None:
    async with world("offline") as w:
        await chat(await w.login("alice"), "bob@localhost", "one", "two")
        bob = await w.bind("bob")
        assert await come(bob) == ["one", "two"]
        assert (await find(bob)).texts == ["one", "two"]


async def test_a_full_queue_forgets_the_oldest_that_the_archive_has_and_refuses_nobody() -> None:
    about = {"plugin_config": {"offline": {"max_messages": 3}}}
    async with world("offline", **about) as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", *"abcde")
        await alice.expect_nothing()
        assert len(await kept(w)) == 3
        bob = await w.bind("bob")
        assert await come(bob) == [*"cde"]
        assert (await find(bob)).texts == [*"abcde"]


async def test_a_queue_that_is_full_of_others_has_no_room_for_it() -> None:
    about = {"plugin_config": {"offline": {"max_messages": 2}}}
    async with world("offline", **about) as w:
        alice = await w.login("alice")
        hint = f"<no-permanent-store xmlns='{ns.HINTS}'/>"
        for text in "ab":
            await alice.send(f"<message to='bob@localhost' type='chat'><body>{text}</body>{hint}</message>")
        await chat(alice, "bob@localhost", "c")
        await alice.expect_nothing()
        bob = await w.bind("bob")
        assert await come(bob) == [*"ab"]
        assert (await find(bob)).texts == ["c"]


async def test_a_full_queue_with_another_in_front_forgets_no_more_than_it_has_to() -> None:
    about = {"plugin_config": {"offline": {"max_messages": 3}}}
    async with world("offline", **about) as w:
        alice = await w.login("alice")
        hint = f"<no-permanent-store xmlns='{ns.HINTS}'/>"
        await alice.send(f"<message to='bob@localhost' type='chat'><body>a</body>{hint}</message>")
        await alice.receive_all()
        await chat(alice, "bob@localhost", *"bcdef")
        await alice.expect_nothing()
        assert await come(await w.bind("bob")) == [*"aef"]


async def test_many_at_once_make_room_for_themselves_alone() -> None:
    about = {"plugin_config": {"offline": {"max_messages": 32}}}
    async with world("offline", **about) as w:
        senders = [await w.login("alice") for _ in range(9)]
        for sender in senders:
            await sender.receive_all()
        texts = [f"old {number}" for number in range(32)]
        for text in texts:
            await chat(senders[0], "bob@localhost", text)
        for number, sender in enumerate(senders[1:]):
            body = f"<body>{number}</body>"
            sender.write(f"<message to='bob@localhost' type='chat'>{body}</message>")
        async for _ in rounds():  # on two nodes somebody may still be counting
            await w.settle()
            if len(await kept(w)) == 31:
                break
        await w.settle()
        assert len(await kept(w)) == 31, "three parts of three were forgotten for eight"


async def test_what_is_gone_from_the_archive_does_not_come() -> None:
    async with world("offline") as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        other = await w.bind("bob", node=0)
        [found] = (await find(other)).ids
        [archive] = {w.plugin("archive")}
        owner = await archive.owners.get("bob@localhost")
        [month] = (await archive.months.scan(owner["uid"])).rows
        await archive.messages.delete(owner["uid"], month["month"])
        assert found and await come(await w.bind("bob")) == [] and await kept(w) == []


async def test_accounts_that_move_take_along_what_waits() -> None:
    async with world("offline") as w:
        await chat(await w.login("alice"), "bob@localhost", "one")
        [[[stanza, at]]] = await w.plugin("offline").give(["bob@localhost"])
        assert "<body>one</body>" in stanza and at == pytest.approx(w.clock.now(), abs=60.0)
        for app in w.apps:
            app.hooks.messages_recalled_recall = ()
        with pytest.raises(CommandError, match="bob@localhost is in its archive"):
            await w.plugin("offline").give(["bob@localhost"])


async def test_while_the_archive_is_not_at_work_they_wait_for_it() -> None:
    async with world("offline") as w:
        await chat(await w.login("alice"), "bob@localhost", "one")
        recalls = [app.hooks.messages_recalled_recall for app in w.apps]
        for app in w.apps:
            app.hooks.messages_recalled_recall = ()
        assert await come(await w.bind("bob")) == [] and len(await kept(w)) == 1
        for app, recall in zip(w.apps, recalls, strict=True):
            app.hooks.messages_recalled_recall = recall
        assert await come(await w.bind("bob")) == ["one"]
