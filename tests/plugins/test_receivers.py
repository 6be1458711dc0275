"""The receiver's side: filters of what comes for an account, and what became of each message."""

from pathlib import Path
from typing import Any

import pytest

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.hooks import Outcome
from xmppd.plugin import element
from xmppd.section import changed
from xmppd.testing import World, refusal

WATCH = '''
import asyncio
from copy import deepcopy
from xmppd import hooks
from xmppd.plugin import Kept, Plugin, StanzaError, element, stanza_of

class Watch(Plugin):
    """Blocks, swallows and marks by the name of the sender."""
    seen = Kept(list)

    @hooks.message_for
    def block(self, account, message):
        if b"block me" in message.raw:
            raise StanzaError("service-unavailable", "blocked")
        if b"swallow me" in message.raw:
            return hooks.DROP
        return message

    @hooks.message_for.at(hooks.FILTER, hooks.LATE)
    async def mark(self, account, message):
        await asyncio.sleep(0)
        if b"late block" in message.raw:
            raise StanzaError("not-acceptable")
        if b"late swallow" in message.raw:
            return hooks.DROP
        tree = deepcopy(message.xml)
        tree.append(element("{urn:xmppd:x:0}mark", {"for": account}))
        return stanza_of(tree)

    @hooks.message_routed
    def note(self, origin, message, account, outcome):
        self.seen.append((origin.full, account, outcome.name, b"urn:xmppd:x:0" in message.raw))

    @hooks.iq_for
    def hang_up(self, account, iq):
        if b"urn:xmppd:drop" in iq.raw:
            return hooks.DROP
        if b"urn:xmppd:block" in iq.raw:
            raise StanzaError("service-unavailable")
        return iq
'''
SIGNAL = '''
from xmppd import hooks
from xmppd.plugin import Kept, Plugin

class Signal(Plugin):
    """Only looks."""
    seen = Kept(list)

    @hooks.message_routed
    def note(self, origin, message, account, outcome):
        self.seen.append((origin.full, account, outcome))

    @hooks.message_routed
    async def fail(self, origin, message, account, outcome):
        raise OSError("no ink")
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watch.py").write_text(WATCH)
    (tmp_path / "signal.py").write_text(SIGNAL)
    return tmp_path


def world_with(folder: Path, *plugins: str) -> World:
    return World(plugins=plugins, plugin_folders=(folder,))


# what becomes of a message


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("to", "kind", "outcome"),
    [
        ("{bob}", "chat", Outcome.DELIVERED),
        ("{bob}", "groupchat", Outcome.DELIVERED),
        ("bob@localhost", "chat", Outcome.DELIVERED),
        ("bob@localhost", "normal", Outcome.DELIVERED),
        ("bob@localhost", "headline", Outcome.DELIVERED),
        ("bob@localhost/gone", "chat", Outcome.DELIVERED),
        ("BOB@LOCALHOST", "chat", Outcome.DELIVERED),
        ("bob@localhost", "groupchat", Outcome.REFUSED),
        ("bob@localhost/gone", "normal", Outcome.REFUSED),
        ("bob@localhost/gone", "headline", Outcome.DROPPED),
        ("bob@localhost", "error", Outcome.DROPPED),
        ("carol@localhost", "chat", Outcome.KEPT),
        ("carol@localhost", "headline", Outcome.DROPPED),
        ("nobody@localhost", "chat", Outcome.REFUSED),
        ("localhost", "chat", None),
        ("elsewhere.example", "chat", None),
        ("bob@elsewhere.example", "chat", None),
    ],
)
async def test_it_is_told_for_the_receiving_account(
    folder: Path, to: str, kind: str, outcome: Outcome | None
) -> None:
    async with world_with(folder, "signal", "offline") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        address = to.format(bob=bob.jid)
        await alice.send(f"<message to='{address}' type='{kind}'><body>hi</body></message>")
        assert world.plugin("signal").seen == (
            [] if outcome is None else [(alice.jid, address.partition("/")[0].lower(), outcome)]
        )
        refused = [answer for answer in await alice.receive_all() if answer.get("type") == "error"]
        assert len(refused) == (outcome in (None, Outcome.REFUSED))
        assert len(await bob.receive_all()) == (outcome is Outcome.DELIVERED)


@pytest.mark.asyncio
async def test_a_message_to_oneself_and_a_chat_state_nobody_takes(folder: Path) -> None:
    async with world_with(folder, "signal", "offline") as world:
        alice = await world.login("alice")
        await alice.send("<message><body>note</body></message>")
        await alice.send(
            "<message to='carol@localhost' type='chat'>"
            "<composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
        )
        assert world.plugin("signal").seen == [
            (alice.jid, "alice@localhost", Outcome.DELIVERED),
            (alice.jid, "carol@localhost", Outcome.DROPPED),
        ]
        assert world.app.hooks.failures == 2


@pytest.mark.asyncio
async def test_what_the_server_sends_is_told_too(folder: Path) -> None:
    async with world_with(folder, "signal") as world:
        bob = await world.login("bob")
        await world.app.server.send(element("{jabber:client}message", {"to": bob.bare, "type": "headline"}))
        assert world.plugin("signal").seen == [("localhost", "bob@localhost", Outcome.DELIVERED)]


# filters


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["{bob}", "bob@localhost", "bob@localhost/gone"])
@pytest.mark.parametrize(
    ("body", "error", "seen"),
    [
        ("block me", "cancel service-unavailable", ("REFUSED", False)),
        ("swallow me", "", ("DROPPED", False)),
        ("late block", "modify not-acceptable", ("REFUSED", False)),
        ("late swallow", "", ("DROPPED", False)),
    ],
)
async def test_a_filter_of_the_receiver_refuses_or_swallows(
    folder: Path, to: str, body: str, error: str, seen: tuple[str, bool]
) -> None:
    async with world_with(folder, "watch", "offline") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        address = to.format(bob=bob.jid)
        await alice.send(f"<message to='{address}' type='chat'><body>{body}</body></message>")
        await bob.expect_nothing()
        if error:
            assert refusal(await alice.receive()) == error
        await alice.expect_nothing()
        assert world.plugin("watch").seen == [(alice.jid, "bob@localhost", *seen)]


@pytest.mark.asyncio
async def test_a_filter_makes_one_copy_for_an_account(folder: Path) -> None:
    async with world_with(folder, "watch", "offline") as world:
        alice = await world.login("alice")
        one, other = await world.login("bob", "one"), await world.login("bob", "other")
        await one.receive_all()
        for to in ("bob@localhost", "carol@localhost"):
            await alice.send(f"<message to='{to}' type='chat'><body>hi</body></message>")
        for bob in (one, other):
            await bob.expect(
                f"<message to='bob@localhost' from='{alice.jid}' type='chat'><body>hi</body>"
                "<mark xmlns='urn:xmppd:x:0' for='bob@localhost'/></message>"
            )
        carol = await world.bind("carol")
        await carol.send("<presence/>")
        kept = [tree for tree in await carol.receive_all() if tree.tag.endswith("message")]
        assert [tree[1].get("for") for tree in kept] == ["carol@localhost"]
        assert [seen[1:] for seen in world.plugin("watch").seen] == [
            ("bob@localhost", "DELIVERED", True),
            ("carol@localhost", "KEPT", True),
        ]


@pytest.mark.asyncio
async def test_the_order_of_one_sender_holds_over_filters_that_wait(folder: Path) -> None:
    async with world_with(folder, "watch") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(
            "".join(f"<message to='{bob.jid}' id='{n}'><body>x</body></message>" for n in range(20))
        )
        assert [tree.get("id") for tree in await bob.receive_all()] == [str(n) for n in range(20)]


@pytest.mark.asyncio
async def test_iqs_pass_the_filters_of_their_receiver(folder: Path) -> None:
    async with world_with(folder, "watch", "disco") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        for to in (bob.jid, "bob@localhost"):
            assert refusal(await alice.ask("get", "<x xmlns='urn:xmppd:block'/>", to=to)) == (
                "cancel service-unavailable"
            )
            await alice.send(f"<iq type='get' id='d' to='{to}'><x xmlns='urn:xmppd:drop'/></iq>")
        await alice.send(f"<iq type='get' id='p' to='{bob.jid}'><ping xmlns='urn:xmpp:ping'/></iq>")
        assert [tree.get("id") for tree in await bob.receive_all()] == ["p"]
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_nobody_pays_for_hooks_that_nobody_uses(folder: Path) -> None:
    async with world_with(folder, "signal") as world:
        hooks = world.app.hooks
        assert hooks.watches_messages
        assert not hooks.iq_for_filter
        none: Any = changed(world.config.plugins, enabled=())
        await world.app.loader.load(changed(world.config, plugins=none))
        assert not hooks.watches_messages


# presence

VEIL = """
from copy import deepcopy
from xmppd import hooks
from xmppd.plugin import Kept, Plugin, StanzaError, stanza_of
from xmppd.xml.stanza import LANG

class Veil(Plugin):
    # carol sees nobody, bob no status
    seen = Kept(list)
    languages = Kept(list)

    @hooks.presence_for
    def veil(self, account, presence):
        self.seen.append((account, presence.attrs["from"], presence.attrs["to"], presence.type))
        self.languages.append(presence.attrs.get(LANG))
        if account.startswith("carol"):
            if b"refuse" in presence.raw:
                raise StanzaError("forbidden")
            if b"fail" in presence.raw:
                raise OSError("blind")
            return hooks.DROP
        tree = deepcopy(presence.xml)
        for status in tree.findall("{jabber:client}status"):
            tree.remove(status)
        return stanza_of(tree)
"""


@pytest.mark.asyncio
async def test_presence_passes_the_filters_of_who_is_shown_it(tmp_path: Path) -> None:
    (tmp_path / "veil.py").write_text(VEIL)
    async with world_with(tmp_path, "veil") as world:
        alice, bob, carol = [await world.login(name) for name in ("alice", "bob", "carol")]
        await world.befriend(alice, bob)
        await world.befriend(alice, carol)
        status = "<status>at the lake</status>"
        await alice.send(f"<presence><show>away</show>{status}</presence>")  # broadcast
        shown = f"<presence from='{alice.jid}' to='bob@localhost'><show>away</show></presence>"
        await bob.expect(shown)
        await alice.expect(shown.replace("bob", "alice").replace("</p", f"{status}</p"))
        await bob.send("<presence type='probe' to='alice@localhost'/>")
        await bob.expect(shown)
        again = await world.bind("bob", "again")  # initial
        await again.send(f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq><presence/>")
        received = [tree for tree in await again.receive_all() if tree.tag.endswith("presence")]
        assert [(tree.get("from"), len(tree)) for tree in received][-2:] == [(bob.jid, 0), (alice.jid, 1)]
        await again.drop()
        await bob.receive_all(), await alice.receive_all()
        await alice.send(f"<presence to='{bob.jid}'>{status}</presence>")  # directed
        await bob.expect(f"<presence from='{alice.jid}' to='{bob.jid}'/>")
        for word in ("x", "refuse", "fail"):
            await alice.send(f"<presence to='{carol.jid}'><status>{word}</status></presence>")
            await alice.send(f"<presence><status>{word}</status></presence>")
        await carol.send("<presence type='probe' to='alice@localhost'/>")
        await carol.expect_nothing()
        assert world.app.hooks.failures == 3
        await bob.receive_all()
        await alice.drop()
        await bob.expect(f"<presence from='{alice.jid}' to='bob@localhost' type='unavailable'/>")
        await carol.expect_nothing()
        assert ("alice@localhost", alice.jid, "alice@localhost", None) not in world.plugin("veil").seen


@pytest.mark.asyncio
async def test_a_presence_for_somebody_is_filtered_with_its_language(tmp_path: Path) -> None:
    (tmp_path / "veil.py").write_text(VEIL)
    async with world_with(tmp_path, "veil") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<presence to='{bob.jid}' xml:lang='cs'/>")
        await bob.expect(f"<presence to='{bob.jid}' xml:lang='cs' from='{alice.jid}'/>")
        assert "cs" in [veil.languages[-1:] for veil in world.plugins("veil")][-1]


@pytest.mark.asyncio
async def test_the_log_names_the_filter_that_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "veil.py").write_text(VEIL)
    text = VEIL.replace("Veil", "Blameless").replace("carol", "nobody").replace("}status", "}nothing")
    (tmp_path / "blameless.py").write_text(text)
    async with world_with(tmp_path, "blameless", "veil") as world:
        alice, carol = await world.login("alice"), await world.login("carol")
        await alice.send(f"<presence to='{carol.jid}'><status>fail</status></presence>")
        await carol.expect_nothing()
        assert [it.hook for it in caplog.records if it.message == "hook-failed"] == ["Veil.veil"]


@pytest.mark.asyncio
async def test_what_nobody_waits_for_is_not_async(tmp_path: Path) -> None:
    (tmp_path / "veil.py").write_text(VEIL.replace("    def veil", "    async def veil"))
    with pytest.raises(CommandError, match=r"veil\.py: TypeError: Veil.veil cannot be async"):
        async with world_with(tmp_path, "veil"):
            pass
