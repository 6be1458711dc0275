"""Messages that a filter ends while their sender takes them for sent (`hooks.UNHEARD`)."""

from pathlib import Path

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

FILTER = """
from xmppd import hooks
from xmppd.plugin import Plugin

class Hush(Plugin):
    '''Whatever has the word in it is heard by nobody.'''
    @hooks.message_sent.at(hooks.FILTER)
    def hush(self, session, message):
        return hooks.UNHEARD if b"fish" in message.raw else message
"""
LATER = FILTER.replace("def hush", "async def hush")
KEEPING = ("offline", "carbons", "archive", "blocking", "hush")
ENABLE = f"<enable xmlns='{ns.CARBONS}'/>"


def world(folder: Path, text: str = FILTER, plugins: tuple[str, ...] = KEEPING) -> World:
    (folder / "hush.py").write_text(text)
    return World(plugins=plugins, plugin_folders=(folder,))


async def bodies(client: Client) -> list[str]:
    """All that a client has received, as far as it was said."""
    stanzas = await client.receive_all()
    return [body.text or "" for stanza in stanzas for body in stanza.iter(f"{{{ns.CLIENT}}}body")]


async def archived(client: Client) -> list[str]:
    await client.receive_all()
    await client.send(f"<iq type='set' id='m'><query xmlns='{ns.MAM}'/></iq>")
    return await bodies(client)


@pytest.mark.asyncio
@pytest.mark.parametrize("text", [FILTER, LATER], ids=["at once", "later"])
async def test_its_sender_sees_it_as_sent_and_nobody_else_at_all(tmp_path: Path, text: str) -> None:
    async with world(tmp_path, text) as it:
        alice, other, bob = await it.login("alice"), await it.login("alice"), await it.login("bob")
        await other.ask("set", ENABLE)
        await bob.receive_all()
        for said in ("one", "fish", "two"):
            await alice.send(f"<message to='bob@localhost' type='chat'><body>{said}</body></message>")
        assert await bodies(alice) == []
        assert await bodies(other) == ["one", "fish", "two"]
        assert await bodies(bob) == ["one", "two"]
        assert await archived(alice) == ["one", "fish", "two"]
        assert await archived(bob) == ["one", "two"]


@pytest.mark.asyncio
async def test_many_of_one_read_are_in_their_order(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        words = ["fish" if number % 3 == 0 else f"word {number}" for number in range(30)]
        await bob.receive_all()
        await alice.send(
            "".join(f"<message to='bob@localhost' type='chat'><body>{one}</body></message>" for one in words)
        )
        assert await bodies(bob) == [one for one in words if one != "fish"]
        assert await archived(alice) == words


@pytest.mark.asyncio
async def test_nothing_is_kept_for_who_is_away(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        alice = await it.login("alice")
        await alice.receive_all()
        await alice.send("<message to='bob@localhost'><body>fish</body></message>")
        await alice.send("<message to='bob@localhost'><body>meat</body></message>")
        await alice.expect_nothing()
        bob = await it.bind("bob")
        await bob.send("<presence/>")
        assert await bodies(bob) == ["meat"]


@pytest.mark.asyncio
async def test_what_would_be_refused_is(tmp_path: Path) -> None:
    """Otherwise its sender could tell the two apart."""
    async with world(tmp_path) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await alice.receive_all()
        answers = []
        for said in ("fish", "meat"):
            await bob.receive_all()
            for to, kind in (
                ("nobody@localhost", "chat"),
                ("nobody@localhost", "headline"),
                ("bob@localhost/none", "normal"),
                ("bob@localhost/none", "groupchat"),
                ("bob@localhost/none", "headline"),
                ("bob@localhost", "groupchat"),
                ("carol@localhost", "chat"),
                ("carol@localhost", "headline"),
                ("@localhost", "chat"),
            ):
                await alice.send(f"<message to='{to}' type='{kind}' id='1'><body>{said}</body></message>")
            answers.append([(one.get("from"), refusal(one)) for one in await alice.receive_all()])
        assert answers[0] == answers[1]
        assert len(answers[0]) == 5
        await bob.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='alice@localhost'/></block>")
        for said in ("fish", "meat"):
            await alice.send(f"<message to='bob@localhost' type='chat'><body>{said}</body></message>")
            assert refusal(await alice.receive()) == "cancel service-unavailable"


@pytest.mark.asyncio
async def test_without_an_archive_it_is_copied_and_gone(tmp_path: Path) -> None:
    async with world(tmp_path, plugins=("carbons", "hush")) as it:
        alice, other, bob = await it.login("alice"), await it.login("alice"), await it.login("bob")
        await other.ask("set", ENABLE)
        await bob.receive_all()
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>fish</body></message>")
        assert await bodies(other) == ["fish"]
        await alice.receive_all()
        await alice.send("<message to='carol@localhost' type='chat'><body>fish</body></message>")
        assert refusal(await alice.receive()) == "cancel service-unavailable"
        await bob.expect_nothing()
