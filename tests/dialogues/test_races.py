"""What happens while something waits: sessions end, resources are taken over, accounts are removed."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from patience import PATIENCE

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.section import changed
from xmppd.testing import PASSWORD, Client, World

GATE = '''
import asyncio
from xmppd import hooks
from xmppd.plugin import Plugin

class Gate(Plugin):
    """Keeps waiting whatever names it, until it is opened."""

    async def start(self):
        self.opened = asyncio.Event()
        self.waiting = 0

    async def pass_by(self, waits):
        if waits:
            self.waiting += 1
            await self.opened.wait()

    @hooks.session_bound
    async def bound(self, session):
        await self.pass_by("slow" in session.resource)

    @hooks.message_sent.at(hooks.POLICY)
    async def message(self, session, message):
        await self.pass_by(b">slow<" in message.raw)

    @hooks.presence_sent.at(hooks.POLICY)
    async def presence(self, session, presence):
        await self.pass_by(b">slow<" in presence.raw)
'''


@asynccontextmanager
async def gated(tmp_path: Path) -> AsyncIterator[World]:
    """A world where what names slow has to wait."""
    (tmp_path / "gate.py").write_text(GATE)
    async with World(plugins=("gate",), plugin_folders=(tmp_path,)) as world:
        yield world
        open_gates(world)


async def let_wait(world: World, count: int = 1) -> None:
    """Go on until so many are waiting at the gate."""
    gates = world.plugins("gate")
    async with asyncio.timeout(PATIENCE):
        while sum(gate.waiting for gate in gates) < count:
            await turns(world)


async def turns(world: World) -> None:
    """Let everything happen that does not wait, on all nodes."""
    is_over = False
    while not is_over:
        for _ in range(20):
            await asyncio.sleep(0)
            for client in world.clients:
                client.pump()
        is_over = not (await world.tell_each_other() or world.is_sending)


def open_gates(world: World) -> None:
    """Whoever waits may go on."""
    for gate in world.plugins("gate"):
        gate.opened.set()


async def open_gate(world: World) -> None:
    """Let everybody go on."""
    open_gates(world)
    await world.settle()


async def unbound(world: World, user: str) -> Client:
    """A client that is authenticated."""
    client = world.connect()
    await client.open()
    await client.authenticate(user)
    await client.open()
    return client


BIND = f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'><resource>slow</resource></bind></iq>"


# a session that ends while one of its stanzas waits


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", " to='alice@localhost'", " to='alice@localhost/one'"])
async def test_nobody_sees_presence_of_a_session_that_is_gone(tmp_path: Path, to: str) -> None:
    async with gated(tmp_path) as world:
        alice, bob = await world.login("alice", "one"), await world.login("bob")
        await world.befriend(alice, bob)
        bob.write(f"<presence{to}><status>slow</status></presence>")
        await let_wait(world)
        bob.transport.close()
        await turns(world)
        await open_gate(world)
        assert [s.get("type") for s in await alice.receive_all()] == ["unavailable"]
        assert not bob.app.sessions.accounts.get("bob@localhost")


@pytest.mark.asyncio
async def test_a_message_that_was_taken_is_delivered_though_its_sender_is_gone(tmp_path: Path) -> None:
    async with gated(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        bob.write(f"<message to='{alice.jid}'><body>slow</body></message>")
        await let_wait(world)
        bob.transport.close()
        await turns(world)
        await open_gate(world)
        await alice.expect(f"<message from='{bob.jid}' to='{alice.jid}'><body>slow</body></message>")


@pytest.mark.asyncio
async def test_what_was_read_behind_a_stanza_that_waits_comes_in_order_and_then_the_end(
    tmp_path: Path,
) -> None:
    async with gated(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        numbered = [f"<message to='{alice.jid}' id='{n}'><body>x</body></message>" for n in range(3)]
        slow = f"<message to='{alice.jid}' id='slow'><body>slow</body></message>"
        bob.write(f"{numbered[0]}{slow}{numbered[1]}{numbered[2][:20]}")
        bob.write(f"{numbered[2][20:]}</stream:stream>")
        await let_wait(world)
        assert not bob.transport.is_reading()
        await turns(world)
        await open_gate(world)
        assert [s.get("id") for s in await alice.receive_all()] == ["0", "slow", "1", "2"]
        assert bob.raw.endswith(b"</stream:stream>")
        assert bob.jid not in bob.app.sessions.by_full


@pytest.mark.asyncio
async def test_a_session_sent_away_while_its_stanza_waits_says_no_more(tmp_path: Path) -> None:
    async with gated(tmp_path) as world:
        alice, old = await world.login("alice"), await world.login("bob", "phone")
        late = f"<message to='{alice.jid}'><body>late</body></message>"
        old.write(f"<message to='{alice.jid}'><body>slow</body></message>{late}")
        await let_wait(world)
        old.app.server.end_session(old.session, "conflict")
        await turns(world)
        await open_gate(world)
        bodies = [s.findtext("{jabber:client}body") for s in await alice.receive_all()]
        assert bodies == ["slow"]


# a bind that waits


@pytest.mark.asyncio
async def test_nothing_comes_before_the_answer_to_the_bind(tmp_path: Path) -> None:
    async with gated(tmp_path) as world:
        alice, bob = await world.login("alice"), await unbound(world, "bob")
        bob.write(BIND)
        await let_wait(world)
        await turns(world)
        alice.write("<message to='bob@localhost/slow' id='early'><body>hi</body></message>")
        await turns(world)
        await open_gate(world)
        assert [s.get("id") for s in await bob.receive_all()] == ["b", "early"]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["broken", "late", "shut down", "replaced"])
async def test_a_connection_that_ends_while_it_binds_leaves_no_session(tmp_path: Path, how: str) -> None:
    async with gated(tmp_path) as world:
        bob = await unbound(world, "bob")
        bob.write(BIND)
        await let_wait(world)
        if how == "broken":
            bob.transport.close()
        elif how == "late":
            world.clock.seconds += 40
            bob.app.service.sweep()
        elif how == "shut down":
            await bob.app.service.shut_down()
        else:
            newcomer = await unbound_slowly(world, "bob")
            newcomer.write(BIND)
            await let_wait(world, 2)
        await turns(world)
        await open_gate(world)
        if how == "replaced":
            assert b"<jid>bob@localhost/slow</jid>" in newcomer.raw
            await newcomer.send("</stream:stream>")
        for app in world.apps:
            assert not app.sessions.by_full and not app.sessions.accounts
        assert b"<jid>" not in bob.raw


async def unbound_slowly(world: World, user: str) -> Client:
    """The same as `unbound`, while somebody waits at the gate."""
    client = world.connect()
    header = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
    initial = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    client.write(f"{header}<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>{header}")
    async with asyncio.timeout(PATIENCE):
        while b"<bind" not in client.raw:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return client


# a login that waits


@pytest.mark.asyncio
async def test_a_connection_that_ends_while_its_password_is_checked() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        initial = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()
        client.write(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>")
        assert world.app.jobs
        await client.drop()
        assert not world.app.service.connections and not world.app.jobs.failed


# accounts that go


@pytest.mark.asyncio
async def test_a_removed_account_has_no_stream_left_bound_or_not() -> None:
    async with World() as world:
        bob, half = await world.login("bob"), await unbound(world, "bob")
        await world.app.server.remove_account("bob@localhost")
        await bob.expect_closed("not-authorized")
        await half.expect_closed("not-authorized")


@pytest.mark.asyncio
async def test_nobody_logs_in_to_an_account_that_is_being_removed() -> None:
    async with World(accounts=("alice", "bob", *(f"u{n}" for n in range(20)))) as world:
        alice = await world.login("alice")
        for n in range(20):
            await alice.send(f"<presence type='subscribe' to='u{n}@localhost'/>")
        await alice.receive_all()
        removal = asyncio.ensure_future(world.app.server.remove_account("alice@localhost"))
        while "alice@localhost" in world.app.sessions.accounts:  # noqa: ASYNC110
            await asyncio.sleep(0)
        client = world.connect()
        await client.open()
        answer = await client.authenticate("alice")
        assert answer.tag == f"{{{ns.SASL}}}failure"
        await removal
        assert not await world.app.server.account_exists("alice@localhost")
        assert not await world.app.rosters.items("alice@localhost")


# rosters


@pytest.mark.asyncio
async def test_a_roster_that_changes_while_it_is_loaded_is_seen_as_it_is() -> None:
    async with World() as world:
        one, two = await world.bind("alice", "one"), await world.bind("alice", "two")
        world.app.rosters.forget("alice@localhost")
        item = "<item jid='bob@localhost' name='Bob'/>"
        one.write("<iq type='get' id='g1'><query xmlns='jabber:iq:roster'/></iq>")
        two.write(
            f"<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
            "<iq type='get' id='g2'><query xmlns='jabber:iq:roster'/></iq>"
        )
        item = "*/{jabber:iq:roster}item"
        seen = [s.find(item) is not None for s in await one.receive_all()]
        assert seen == sorted(seen) and seen[-1]
        assert (await two.receive_all())[-1].find(item) is not None


@pytest.mark.asyncio
async def test_two_resources_that_disagree_leave_one_truth() -> None:
    async with World() as world:
        one, two = await world.login("alice", "one"), await world.login("alice", "two")
        bob = await world.login("bob")
        for _ in range(5):
            await bob.send("<presence type='subscribe' to='alice@localhost'/>")
            one.write("<presence type='subscribed' to='bob@localhost'/>")
            two.write("<presence type='unsubscribed' to='bob@localhost'/>")
            await world.settle()
            mine = await item(world, "alice@localhost", "bob@localhost")
            theirs = await item(world, "bob@localhost", "alice@localhost")
            assert (mine in ("from", "both")) == (theirs in ("to", "both"))
            shown: dict[str, bool] = {}
            for stanza in await bob.receive_all():
                if stanza.tag.endswith("presence") and "/" in stanza.get("from", ""):
                    shown[stanza.get("from", "")] = stanza.get("type") is None
            assert set(shown.values()) <= {theirs in ("to", "both")}


async def item(world: World, account: str, contact: str) -> str:
    """The subscription in an account's roster."""
    found = await world.app.rosters.get_item(account, contact)
    return found.subscription if found is not None else "none"


# plugins that change

OLD = '''
import asyncio
from xmppd import hooks
from xmppd.plugin import SELF, Plugin, iq_get

class Swap(Plugin):
    """Says that it was stopped when it is asked after its end."""
    stopped = False

    @iq_get("{urn:swap}ask", SELF)
    def ask(self, request):
        return b"<stopped xmlns='urn:swap'/>" if self.stopped else b"<at-work xmlns='urn:swap'/>"

    @hooks.message_sent.at(hooks.FILTER)
    async def wait(self, session, message):
        for _ in range(50):
            await asyncio.sleep(0)
        return message

    async def stop(self):
        self.stopped = True
        for _ in range(50):
            await asyncio.sleep(0)
'''


@pytest.mark.asyncio
async def test_nothing_is_asked_of_a_plugin_that_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "swap.py").write_text(OLD)
    async with World(plugins=("swap",), plugin_folders=(tmp_path,)) as world:
        alice = await world.login("alice")
        reload = asyncio.ensure_future(world.app.loader.reload("swap", world.config))
        while not reload.done():
            alice.write("<iq type='get' id='q'><ask xmlns='urn:swap'/></iq>")
            await asyncio.sleep(0)
        answers = await alice.receive_all()
        assert len(answers) > 20 and {answer[0].tag for answer in answers} == {"{urn:swap}at-work"}


@pytest.mark.asyncio
async def test_a_stanza_that_waits_for_a_plugin_survives_its_end(tmp_path: Path) -> None:
    (tmp_path / "swap.py").write_text(OLD)
    async with World(plugins=("swap",), plugin_folders=(tmp_path,)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        alice.write(f"<message to='{bob.jid}' id='1'><body>x</body></message>")
        await world.app.loader.load(changed(world.config, plugins=type(world.config.plugins)()))
        alice.write(f"<message to='{bob.jid}' id='2'><body>x</body></message>")
        assert [s.get("id") for s in await bob.receive_all()] == ["1", "2"]


@pytest.mark.asyncio
async def test_plugins_that_fail_when_they_are_put_together_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "swap.py").write_text(OLD)
    async with World(plugins=("swap",), plugin_folders=(tmp_path,)) as world:
        alice = await world.login("alice")
        (tmp_path / "swap.py").write_text(
            OLD + "    def mechanisms(self):\n        raise RuntimeError('oops')\n"
        )
        with pytest.raises(CommandError, match="oops"):
            await world.app.loader.reload("swap", world.config)
        answer = await alice.ask("get", "<ask xmlns='urn:swap'/>")
        assert answer[0].tag == "{urn:swap}at-work"
