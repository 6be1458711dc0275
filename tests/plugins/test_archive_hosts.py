"""What is said to hosts of plugins and to the server itself, and what these say, in the archive of who speaks
with them (XEP-0313).
"""

import asyncio
from pathlib import Path

import pytest
from archives import STANZA_ID, chat, field, find, form, world

from xmppd import ns
from xmppd.testing import World, refusal

pytestmark = pytest.mark.asyncio

ECHO = """
from xmppd import hooks
from xmppd.plugin import Origin, Plugin, Stanza, StanzaError, element, service

BODY = "{jabber:client}body"


class Echo(Plugin):
    async def start(self) -> None:
        self.seen = []
        self.told = []

    @service("echo")
    async def take(self, origin: Origin, stanza: Stanza, to: object) -> object:
        text = stanza.xml.findtext(BODY) or ""
        self.seen.append((text, b"stanza-id" in stanza.raw))
        if text == "broken":
            raise StanzaError("not-acceptable", "It broke.")
        attrs = {"from": str(to), "to": stanza.attrs["from"], "type": stanza.type or "normal"}
        hints = [element("{urn:xmpp:hints}no-store")] if text == "secret" else []
        said = element("{jabber:client}message", attrs, element(BODY, None, "re: " + text), *hints)
        await self.server.send(said)
        return None

    @hooks.server_message
    def heed(self, origin: Origin, message: Stanza) -> object:
        return hooks.DROP if message.to == "localhost/heed" else message

    @hooks.message_routed
    def routed(self, origin: Origin, message: Stanza, account: str, outcome: object) -> None:
        self.told.append(account)
"""
HINT = f"<no-store xmlns='{ns.HINTS}'/>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "echo.py").write_text(ECHO)
    return tmp_path


def echoes(folder: Path, *more: str) -> World:
    return world("echo", *more, plugin_folders=(folder,))


@pytest.mark.parametrize("to", ["echo.localhost", "room@echo.localhost", "room@echo.localhost/me"])
async def test_both_what_a_host_is_told_and_what_it_answers_are_there(folder: Path, to: str) -> None:
    async with echoes(folder) as w:
        alice = await w.login("alice")
        await chat(alice, to, "one", "two")
        live = await alice.receive_all()
        found = await find(alice)
        assert found.texts == ["one", "re: one", "two", "re: two"]
        ids = [stanza.find(STANZA_ID) for stanza in live]
        assert [id.get("id") for id in ids if id is not None] == found.ids[1::2]
        assert (await find(alice, form(field("with", to)))).texts == found.texts
        assert (await find(await w.login("bob"))).texts == []


async def test_a_host_sees_what_was_sent_and_nobody_is_told_what_became_of_it(folder: Path) -> None:
    async with echoes(folder) as w:
        alice = await w.login("alice")
        await chat(alice, "echo.localhost", "one")
        seen = [seen for plugin in w.plugins("echo") for seen in plugin.seen]
        told = [account for plugin in w.plugins("echo") for account in plugin.told]
        assert seen == [("one", False)] and told == ["alice@localhost"]


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("<message to='echo.localhost'><body>x</body></message>", ["x", "re: x"]),
        ("<message to='echo.localhost'><body>secret</body></message>", ["secret"]),
        (f"<message to='echo.localhost'><body>x</body>{HINT}</message>", ["re: x"]),
        ("<message to='echo.localhost' type='groupchat'><body>x</body></message>", []),
        ("<message to='echo.localhost' type='headline'><body>x</body></message>", []),
        ("<message to='echo.localhost' type='chat'><active xmlns='http://x'/></message>", ["re: "]),
        ("<message to='nobody.localhost'><body>x</body></message>", []),
        ("<message to='localhost/heed'><body>x</body></message>", ["x"]),
        ("<message to='localhost/heed' type='headline'><body>x</body></message>", []),
    ],
)
async def test_what_is_kept(folder: Path, message: str, kept: list[str]) -> None:
    async with echoes(folder) as w:
        alice = await w.login("alice")
        await alice.send(message)
        assert (await find(alice)).texts == kept


async def test_what_a_host_refuses_is_refused_in_its_turn(folder: Path) -> None:
    async with echoes(folder) as w:
        alice = await w.login("alice")
        await chat(alice, "echo.localhost", "one", "broken", "two")
        await alice.send("<message to='elsewhere.localhost'><body>x</body></message>")
        stanzas = await alice.receive_all()
        kinds = [stanza.findtext(f"{{{ns.CLIENT}}}body") or refusal(stanza) for stanza in stanzas]
        assert kinds == ["re: one", "modify not-acceptable", "re: two", "cancel remote-server-not-found"]


async def test_preferences_hold_for_hosts(folder: Path) -> None:
    async with echoes(folder) as w:
        alice = await w.login("alice")
        never = "<never><jid>echo.localhost</jid></never>"
        await alice.ask("set", f"<prefs xmlns='{ns.MAM}' default='always'><always/>{never}</prefs>")
        await chat(alice, "echo.localhost", "one")
        assert (await find(alice)).texts == []


async def test_a_copy_has_the_id_of_what_was_sent(folder: Path) -> None:
    async with echoes(folder, "carbons") as w:
        alice, other = await w.login("alice"), await w.login("alice", "other")
        await other.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
        await chat(alice, "echo.localhost", "one")
        copies = await other.receive_all()
        ids = [id.get("id") for copy in copies for id in copy.iter(STANZA_ID)]
        found = await find(alice)
        assert found.texts == ["one", "re: one"] and sorted(found.ids) == sorted(map(str, ids))


async def test_a_host_is_told_when_it_is_written_and_behind_what_was_sent_before(folder: Path) -> None:
    async with echoes(folder) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "echo.localhost", "before")
        await alice.receive_all()
        plugin = w.plugins("archive")[w.apps.index(alice.app)]
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        write = plugin.messages.write

        def slowly(some: object, *, ttl: float | None = None) -> asyncio.Future[None]:
            async def both() -> None:
                await held
                await write(some, ttl=ttl)

            return asyncio.ensure_future(both())

        plugin.messages.write = slowly
        await chat(alice, "bob@localhost", "one")
        await chat(alice, "echo.localhost", "two")
        await bob.expect_nothing()
        assert [text for each in w.plugins("echo") for text, _ in each.seen] == ["before"]
        held.set_result(None)
        plugin.messages.write = write
        await w.settle()
        assert [text for each in w.plugins("echo") for text, _ in each.seen] == ["before", "two"]
        assert (await find(alice)).texts == ["before", "re: before", "one", "two", "re: two"]
