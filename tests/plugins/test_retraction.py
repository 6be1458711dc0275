"""Messages that are taken back (XEP-0424), and what says something of others and passes as it is."""

from typing import Any
from xml.etree.ElementTree import Element

import pytest
from archives import later
from patience import rounds

from xmppd import ns
from xmppd.store.table import Table
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

BODY = f"{{{ns.CLIENT}}}body"
MESSAGE = f"{{{ns.CLIENT}}}message"
RESULT = f"{{{ns.MAM}}}result"
RETRACTED = f"{{{ns.RETRACTION}}}retracted"
LOOKS = 100
"""How often it is looked, on an engine that is slow."""


def world(*more: str, **about: Any) -> World:
    return World(plugins=("archive", *more), **about)


async def say(client: Client, to: str, id: str, text: str) -> None:
    await client.send(f"<message to='{to}' id='{id}' type='chat'><body>{text}</body></message>")


async def retract(client: Client, to: str, about: str, id: str = "r") -> None:
    await client.send(
        f"<message to='{to}' id='{id}' type='chat'><retract xmlns='{ns.RETRACTION}' id='{about}'/>"
        f"<fallback xmlns='urn:xmpp:fallback:0' for='{ns.RETRACTION}'/><body>taken back</body></message>"
    )


async def results(client: Client) -> list[Element]:
    await client.world.settle()
    await client.receive_all()
    await client.send(f"<iq type='set' id='q'><query xmlns='{ns.MAM}'/></iq>")
    return [found for stanza in await client.receive_all() if (found := stanza.find(RESULT)) is not None]


async def texts(client: Client) -> list[str | None]:
    """The bodies in an archive; of a tombstone the id of what it was taken back by."""
    found = []
    for result in await results(client):
        grave = result.find(f".//{RETRACTED}")
        found.append(result.findtext(f".//{BODY}") if grave is None else f"grave {grave.get('id')}")
    return found


async def expect_texts(client: Client, wanted: list[str | None]) -> None:
    """These are in an archive, as soon as what was said has been done: an engine may be slow."""
    found: list[str | None] = []
    async for _ in rounds(0.02):
        if (found := await texts(client)) == wanted:
            break
    assert found == wanted


async def rest(w: World) -> None:
    """Where several nodes write, the clocks of all have passed what was said."""
    await w.advance(2)


async def test_a_tombstone_is_in_both_archives_and_in_the_place_of_the_message() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await alice.send(
            "<message to='bob@localhost' id='m' type='chat' xml:lang='en'><body>secret</body>"
            "<x xmlns='urn:secret'/></message>"
        )
        await say(alice, "bob@localhost", "n", "other")
        before = {client: await results(client) for client in (alice, bob)}
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        for client in (alice, bob):
            await expect_texts(client, ["grave r", "other", "taken back"])
            found = await results(client)
            assert [result.get("id") for result in found][:2] == [
                result.get("id") for result in before[client]
            ]
            stamps = [result.find(f".//{{{ns.DELAY}}}delay").get("stamp") for result in found]
            [message] = found[0].iter(MESSAGE)
            assert dict(message.items()) == {
                "from": alice.jid,
                "to": "bob@localhost",
                "id": "m",
                "type": "chat",
            }
            assert [(child.tag, dict(child.items())) for child in message] == [
                (RETRACTED, {"id": "r", "stamp": stamps[2]})
            ]


async def test_the_retraction_itself_is_delivered_kept_and_not_taken_back() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await say(alice, "bob@localhost", "m", "secret")
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        await retract(alice, "bob@localhost", "r", "r2")
        assert [stanza.findtext(BODY) for stanza in await bob.receive_all()] == [
            "secret",
            "taken back",
            "taken back",
        ]
        await expect_texts(bob, ["grave r", "taken back", "taken back"])


async def correct(client: Client, to: str, about: str, id: str, space: str = ns.CORRECTION) -> None:
    await client.send(
        f"<message to='{to}' id='{id}' type='chat'><body>{id} for {about}</body>"
        f"<replace xmlns='{space}' id='{about}'/></message>"
    )


async def test_corrections_of_it_are_taken_back_with_a_message() -> None:
    """XEP-0308: also those by another device; not those of others, nor what corrects something else."""
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await say(alice, "bob@localhost", "m", "secret")
        await say(alice, "bob@localhost", "n", "other")
        await correct(alice, "bob@localhost", "m", "m2")
        await correct(
            await w.login("alice"), "bob@localhost", "m", "m3", ns.CORRECTION.replace("u", "&#117;", 1)
        )
        await correct(alice, "bob@localhost", "m", "m")
        await correct(bob, "alice@localhost", "m", "m4")
        await correct(alice, "bob@localhost", "n", "m5")
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        expected = ["grave r", "other", "grave r", "grave r", "grave r", "m4 for m", "m5 for n", "taken back"]
        for client in (alice, bob):
            await expect_texts(client, expected)


async def test_each_correction_that_is_taken_back_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        counted: list[int] = []
        for archive in w.plugins("archive"):
            names = archive._errands._run.__func__.__globals__
            monkeypatch.setitem(names, "rest_after", lambda rows: counted.append(rows) or 0.0)
        alice = await w.login("alice")
        for number in range(10):
            await correct(alice, "bob@localhost", "m", f"m{number}")
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        await expect_texts(alice, ["grave r"] * 10 + ["taken back"])
        await w.settle()
        assert counted and counted[0] >= 2 * 10 * 50


async def test_corrections_go_though_the_message_is_not_there_any_more() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await correct(alice, "bob@localhost", "m", "m2")
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        await expect_texts(bob, ["grave r", "taken back"])


@pytest.mark.parametrize("who", ["bob", "carol"])
async def test_nobody_takes_back_what_another_said(who: str) -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await say(alice, "bob@localhost", "m", "secret")
        await say(alice, "carol@localhost", "m", "secret")
        await rest(w)
        forger = {"bob": bob, "carol": carol}[who]
        await retract(forger, "alice@localhost", "m")
        if who == "carol":
            await retract(forger, "bob@localhost", "m")
        assert (await texts(alice))[:2] == ["secret", "secret"]
        assert (await texts(bob))[0] == "secret"


async def test_only_in_the_conversation_in_which_it_is_taken_back() -> None:
    async with world() as w:
        alice, carol = await w.login("alice"), await w.login("carol")
        await say(alice, "bob@localhost", "m", "to bob")
        await say(alice, "carol@localhost", "m", "to carol")
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        await expect_texts(alice, ["grave r", "to carol", "taken back"])
        await expect_texts(carol, ["to carol"])


async def test_of_two_with_one_id_the_newest_and_another_device_may() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await say(alice, "bob@localhost", "m", "one")
        await say(alice, "bob@localhost", "m", "two")
        await rest(w)
        await retract(await w.login("alice"), bob.jid, "m")
        await expect_texts(bob, ["one", "grave r", "taken back"])


async def test_whoever_has_no_id_is_named_by_the_archive_and_odd_ids_are_found() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await say(alice, "bob@localhost", "a &amp; &#233;", "secret")
        await rest(w)
        await alice.send(
            "<message to='bob@localhost'>"
            f"<retract xmlns='{ns.RETRACTION.replace('u', '&#117;', 1)}' id='a &amp; é'/></message>"
        )
        found = await results(bob)
        [grave] = found[0].iter(RETRACTED)
        assert grave.get("id") == found[1].get("id")


async def test_days_later_and_behind_many_others() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await say(alice, "bob@localhost", "m", "secret")
        later(w, days=40)
        for client in (alice, carol):
            others = "<message to='bob@localhost' type='chat' id='n'><body>other</body></message>" * 30
            await client.send(others)
        await retract(alice, "bob@localhost", "m")
        assert (await texts(bob))[0] == "grave r"


async def test_a_tombstone_lives_no_longer_than_the_message_would_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(plugin_config={"archive": {"days": 3}}) as w:
        lives: list[float] = []
        for app in w.apps:
            put = app.store.put

            async def noting(table: Table, row: Any, *, ttl: float | None = None, put: Any = put) -> None:
                if table.name == "archive_messages":
                    lives.append(ttl or 0.0)
                await put(table, row, ttl=ttl)

            monkeypatch.setattr(app.store, "put", noting)
        alice, bob = await w.login("alice"), await w.login("bob")
        await say(alice, "bob@localhost", "m", "secret")
        later(w, days=1)
        await retract(alice, "bob@localhost", "m")
        await expect_texts(bob, ["grave r", "taken back"])
        assert len(lives) == 2 and all(1.99 < life / 86_400 < 2.01 for life in lives)


async def test_what_waits_for_a_client_is_taken_back_there_by_what_waits_behind_it() -> None:
    async with world("offline") as w:
        alice = await w.login("alice")
        await say(alice, "bob@localhost", "m", "secret")
        await rest(w)
        await retract(alice, "bob@localhost", "m")
        await expect_texts(await w.bind("bob", "looks"), ["grave r", "taken back"])
        bob = await w.bind("bob")
        await bob.send("<presence/>")
        waited = [stanza for stanza in await bob.receive_all() if stanza.tag == MESSAGE]
        assert [(stanza.get("id"), stanza.findtext(BODY)) for stanza in waited] == [
            ("m", None),
            ("r", "taken back"),
        ]
        assert waited[0].find(RETRACTED) is not None
        assert await texts(bob) == ["grave r", "taken back"]


@pytest.mark.parametrize(
    "inner",
    [
        f"<body>new</body><replace xmlns='{ns.CORRECTION}' id='m'/>",
        f"<reactions xmlns='{ns.REACTIONS}' id='m'><reaction>+</reaction></reactions>",
    ],
    ids=["correction", "reaction"],
)
async def test_corrections_and_reactions_pass_and_are_archived_as_they_are(inner: str) -> None:
    """XEP-0308 and XEP-0444: what they are about stays as it was said."""
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await say(alice, "bob@localhost", "m", "old")
        await bob.receive_all()
        await alice.send(f"<message to='bob@localhost' id='c' type='chat'>{inner}</message>")
        live = await bob.receive()
        expected = [child.tag for child in live if child.tag != f"{{{ns.STANZA_ID}}}stanza-id"]
        for client in (alice, bob):
            [first, second] = [next(result.iter(MESSAGE)) for result in await results(client)]
            assert first.findtext(BODY) == "old"
            assert [child.tag for child in second] == expected and second.get("id") == "c"
