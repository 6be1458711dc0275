"""What is refused because its receiver blocks its sender: in no archive, or in the sender's own."""

import asyncio
from xml.etree.ElementTree import Element

import pytest
from archives import BODY, STANZA_ID, chat, find, world

from xmppd import ns
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

ALICE = "alice@localhost"


def barring(is_kept: bool) -> World:
    return world("blocking", "carbons", "offline", plugin_config={"archive": {"blocked": is_kept}})


async def barred(w: World, alice: Client) -> None:
    """She blocks bob."""
    payload = f"<block xmlns='{ns.BLOCKING}'><item jid='bob@localhost'/></block>"
    assert (await alice.ask("set", payload)).get("type") == "result"
    await w.settle()
    await alice.receive_all()


async def errors(client: Client, count: int) -> list[Element]:
    """So many refusals that it is told, which may have to wait for what was sent before."""
    found: list[Element] = []
    while len(found) < count:
        found += [stanza for stanza in await client.receive_all() if stanza.get("type") == "error"]
        await asyncio.sleep(0.001)
    return found


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
async def test_the_archive_of_who_is_blocked_has_it_if_that_is_wanted(is_kept: bool, is_known: bool) -> None:
    async with barring(is_kept) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        carol = await w.login("carol")
        await barred(w, alice)
        if not is_known:
            await alice.drop()
            for app in w.apps:
                app.blocks.release()
        for number, to in enumerate(("carol@localhost", ALICE, "carol@localhost", f"{ALICE}/gone")):
            bob.write(f"<message to='{to}' id='{number}' type='chat'><body>{number}</body></message>")
        refused = [(stanza.get("id"), refusal(stanza)) for stanza in await errors(bob, 2)]
        assert refused == [("1", "cancel service-unavailable"), ("3", "cancel service-unavailable")]
        if not is_known:
            alice = await w.login("alice")
        assert [stanza for stanza in await alice.receive_all() if stanza.find(BODY) is not None] == []
        assert (await find(alice)).texts == []
        assert (await find(bob)).texts == (["0", "1", "2", "3"] if is_kept else ["0", "2"])
        assert (await find(carol)).texts == ["0", "2"]


async def test_what_is_no_content_is_in_none_and_copies_have_the_id() -> None:
    async with barring(True) as w:
        alice, bob, other = await w.login("alice"), await w.login("bob"), await w.login("bob")
        await other.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
        await barred(w, alice)
        await bob.receive_all()
        await other.receive_all()
        await bob.send(f"<message to='{ALICE}' type='chat'><active xmlns='{ns.CHAT_STATES}'/></message>")
        await bob.send(f"<message to='{ALICE}' type='headline'><body>h</body></message>")
        await chat(bob, ALICE, "x")
        copies = [stanza for stanza in await other.receive_all() if stanza.find(f".//{BODY}") is not None]
        ids = [id.get("id") for stanza in copies for id in stanza.iter(STANZA_ID)]
        found = await find(bob)
        assert found.texts == ["x"]
        assert ids[:1] == found.ids
