"""What a client claims is not believed: senders, stamps of servers, and addresses written in another way."""

import time
from pathlib import Path

import pytest

from xmppd import ns
from xmppd.core.intake import Intake
from xmppd.testing import World, refusal
from xmppd.xml.stanza import Stanza

FOLDER = Path(__file__).parent
HIDDEN_SID = ns.STANZA_ID.replace("x", "&#120;", 1)
HIDDEN_DELAY = ns.DELAY.replace("d", "&#x64;", 1)
AT = "stamp='2002-09-10T23:08:25Z'"


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["bob@localhost/x", "bob@localhost"])
@pytest.mark.parametrize(
    "forged",
    [
        f"<stanza-id xmlns='{ns.STANZA_ID}' id='1' by='localhost'/>",
        f"<stanza-id xmlns='{HIDDEN_SID}' id='1' by='localhost'/>",
        f"<stanza-id xmlns='{ns.STANZA_ID}' id='1' by='local&#104;ost'/>",
        f"<p:stanza-id xmlns:p='{HIDDEN_SID}' id='1' by='alice@LOCALHOST'/>",
        f"<delay xmlns='{ns.DELAY}' from='localhost' {AT}/>",
        f"<delay xmlns='{HIDDEN_DELAY}' from='LOCALHOST' {AT}/>",
        f"<delay xmlns='{ns.DELAY}' from='bob@localhost' {AT}/>",
        f"<p:delay xmlns:p='{ns.DELAY}' from=' localhost ' {AT}/>",
        f"<x xmlns='{ns.LEGACY_DELAY}' from='localhost' stamp='20020910T23:08:25'/>",
        "<x xmlns='jabber:x:d&#101;lay' from='localhost' stamp='20020910T23:08:25'/>",
    ],
)
async def test_what_only_the_server_says_is_taken_off(to: str, forged: str) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob", "x")
        await alice.send(f"<message to='{to}' type='chat'>{forged}<body>x</body></message>")
        await bob.expect(f"<message to='{to}' from='{alice.jid}' type='chat'><body>x</body></message>")


@pytest.mark.asyncio
async def test_presence_brings_no_stamp_of_ours_either() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        forged = f"<delay xmlns='{HIDDEN_DELAY}' from='localhost' {AT}/>"
        await alice.send(f"<presence to='{bob.jid}'>{forged}<status>x</status></presence>")
        await bob.expect(f"<presence to='{bob.jid}' from='{alice.jid}'><status>x</status></presence>")
        await alice.send(f"<presence>{forged}<status>y</status></presence>")
        await alice.expect(f"<presence to='{alice.bare}' from='{alice.jid}'><status>y</status></presence>")


@pytest.mark.asyncio
@pytest.mark.parametrize("sender", ["{alice}", "room@elsewhere.example", "alice@localhost", None])
async def test_honest_stamps_stay(sender: str | None) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        of = f" from='{sender.format(alice=alice.jid)}'" if sender else ""
        child = f"<delay xmlns='{ns.DELAY}'{of} {AT}/><body>a delay</body>"
        await alice.send(f"<message to='{bob.jid}'>{child}</message>")
        await bob.expect(f"<message to='{bob.jid}' from='{alice.jid}'>{child}</message>")


@pytest.mark.asyncio
async def test_an_address_of_ours_is_passed_on_in_its_normal_form() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob", "Phone")
        await alice.send("<message to='BOB@LOCALHOST/Phone'><body>x</body></message>")
        await bob.expect(f"<message to='{bob.jid}' from='{alice.jid}'><body>x</body></message>")
        await alice.send("<presence to='Bob@LocalHost/Phone'/>")
        await bob.expect(f"<presence to='{bob.jid}' from='{alice.jid}'/>")


@pytest.mark.asyncio
async def test_a_refusal_comes_from_the_address_that_was_written() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send("<message to='NOBODY@LOCALHOST'><body>x</body></message>")
        answer = await alice.receive()
        assert refusal(answer) == "cancel service-unavailable"
        assert answer.get("from") == "NOBODY@LOCALHOST"


SPIES = """
from xmppd import hooks
from xmppd.plugin import Plugin, Session, Stanza, element, stanza_of


class Spy(Plugin):
    async def start(self) -> None:
        self.seen = []

    @hooks.message_sent
    def sent(self, session: Session, message: Stanza) -> None:
        self.seen.append(("sent", message.attrs["from"], message.to))

    @hooks.message_sent.at(hooks.FILTER)
    def change(self, session: Session, message: Stanza) -> Stanza:
        if b"another" not in message.raw:
            return message
        return stanza_of(element("{jabber:client}message", {"to": message.to, "from": "carol@localhost"}))

    @hooks.server_message
    def told(self, session: Session, message: Stanza) -> hooks.Drop:
        self.seen.append(("server", message.attrs["from"], message.to))
        return hooks.DROP

    @hooks.message_unclaimed
    def unclaimed(self, account: str, message: Stanza) -> hooks.Drop:
        self.seen.append((account, message.attrs["from"], message.xml.get("from")))
        return hooks.DROP
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("claim", ["", " from='carol@localhost/x'"])
async def test_plugins_are_told_the_true_sender(claim: str, tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(SPIES)
    async with World(plugins=("spy",), plugin_folders=(tmp_path,)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        spy = world.plugin("spy")
        for to in ("LOCALHOST/x", "Carol@localhost", bob.jid):
            await alice.send(f"<message{claim} to='{to}'><body>x</body></message>")
        assert spy.seen == [
            ("sent", alice.jid, "localhost/x"),
            ("server", alice.jid, "localhost/x"),
            ("sent", alice.jid, "carol@localhost"),
            ("carol@localhost", alice.jid, alice.jid),
            ("sent", alice.jid, bob.jid),
        ]
        await bob.receive_all()
        await alice.send(f"<message{claim} to='{bob.jid}'><another/></message>")
        await bob.expect(f"<message to='{bob.jid}' from='{alice.jid}'/>")


@pytest.mark.asyncio
async def test_many_forged_stamps_cost_little_each() -> None:
    async with World() as world:
        alice = await world.login("alice")
        forged = f"<delay xmlns='{ns.DELAY}' from='localhost'/>" * 15_000
        raw = f"<message xmlns='{ns.CLIENT}'>{forged}{'<a/>' * 15_000}</message>".encode()
        began = time.process_time()
        taken = Intake(world.app.sessions, {"localhost"}).take(alice.session, Stanza("message", {}, raw))
        assert time.process_time() - began < 1.0
        assert len(taken.xml) == 15_000
