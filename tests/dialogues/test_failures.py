"""Mistakes in plugins, and of ours, cost one stanza or one stream, and nobody else notices."""

import gc
from pathlib import Path

import pytest

from xmppd import ns
from xmppd.errors import StanzaError
from xmppd.testing import Client, World, refusal

FAULTY = '''
from xmppd import hooks
from xmppd.errors import StreamError
from xmppd.plugin import LOGIN, SELF, Plugin, iq_get

class Exchange:
    def step(self, data):
        raise RuntimeError("a bug in a mechanism")

class Broken:
    name, priority, needs_tls = "X-BROKEN", 1, False
    def available(self, channel):
        return True
    def start(self, channel):
        return Exchange()

class Faulty(Plugin):
    """Makes every mistake it is asked for."""

    async def start(self):
        self.told = []

    def mechanisms(self):
        return [Broken()]

    @iq_get("{urn:bug}sync", SELF, LOGIN)
    def sync(self, request):
        raise RuntimeError("a bug in a handler")

    @iq_get("{urn:bug}later", SELF, LOGIN)
    async def later(self, request):
        raise RuntimeError("a bug in a handler")

    @iq_get("{urn:bug}nonsense", SELF)
    def nonsense(self, request):
        return 17

    @hooks.message_sent.at(hooks.POLICY)
    def policy(self, session, message):
        if b"bug" in message.raw:
            raise RuntimeError("a bug in a policy")
        if b"begone" in message.raw:
            raise StreamError("policy-violation", "begone")
        return b"anything" in message.raw

    @hooks.message_sent.at(hooks.POLICY)
    async def policy_later(self, session, message):
        if b"leave" in message.raw:
            raise StreamError("policy-violation", "leave")
        return hooks.DROP

    @hooks.message_sent.at(hooks.SIGNAL, hooks.EARLY)
    def signal_with_a_bug(self, session, message):
        raise RuntimeError("a bug in a signal")

    @hooks.message_sent.at(hooks.SIGNAL)
    async def signal(self, session, message):
        self.told.append(message.id)

    @hooks.message_sent.at(hooks.SIGNAL, hooks.LATE)
    def last_signal(self, session, message):
        self.told.append("last")

    @hooks.session_bound
    def bound(self, session):
        raise RuntimeError("a bug at bind")

    @hooks.session_available
    async def available(self, session):
        raise RuntimeError("a bug at initial presence")

    @hooks.session_closed
    async def closed(self, session):
        raise RuntimeError("a bug at the end")
'''


def faulty(tmp_path: Path) -> World:
    (tmp_path / "faulty.py").write_text(FAULTY)
    return World(plugins=("faulty",), plugin_folders=(tmp_path,))


def message(client: Client, body: str) -> str:
    return f"<message to='{client.jid}' type='chat' id='m'><body>{body}</body></message>"


@pytest.mark.asyncio
@pytest.mark.parametrize("payload", ["sync", "later", "nonsense"])
async def test_a_bug_in_a_handler_costs_one_stanza(tmp_path: Path, payload: str) -> None:
    async with faulty(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<iq type='get' id='q'><{payload} xmlns='urn:bug'/></iq>{message(bob, 'hi')}")
        assert refusal(await alice.receive()) == "cancel internal-server-error"
        assert (await bob.receive()).findtext("{jabber:client}body") == "hi"
        assert world.app.router.errors == 1


@pytest.mark.asyncio
async def test_a_bug_in_a_policy_costs_one_message(tmp_path: Path) -> None:
    async with faulty(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(message(bob, "bug") + message(bob, "hi"))
        assert refusal(await alice.receive()) == "cancel internal-server-error"
        assert (await bob.receive()).findtext("{jabber:client}body") == "hi"


@pytest.mark.asyncio
async def test_what_a_policy_returns_is_ignored(tmp_path: Path) -> None:
    async with faulty(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(message(bob, "anything"))
        await bob.expect(
            f"<message from='{alice.jid}' to='{bob.jid}' type='chat' id='m'><body>anything</body></message>"
        )
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_signals_are_told_in_order_those_that_wait_too(tmp_path: Path) -> None:
    async with faulty(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        before = world.app.hooks.failures
        await alice.send(message(bob, "hi"))
        assert world.plugin("faulty").told == ["m", "last"]
        assert world.app.hooks.failures == before + 1


@pytest.mark.asyncio
@pytest.mark.parametrize("body", ["begone", "leave"])
async def test_a_plugin_may_end_a_stream(tmp_path: Path, body: str) -> None:
    async with faulty(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(message(bob, body) + message(bob, "late"))
        await alice.expect_closed("policy-violation")
        await bob.expect_nothing()
        assert alice.jid not in world.app.sessions.by_full


@pytest.mark.asyncio
async def test_a_bug_in_a_mechanism_ends_that_stream(tmp_path: Path) -> None:
    async with faulty(tmp_path) as world:
        client = world.connect()
        await client.open()
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='X-BROKEN'>=</auth>")
        await client.expect_closed("internal-server-error")


@pytest.mark.asyncio
@pytest.mark.parametrize("payload", ["sync", "later"])
async def test_a_bug_before_login_ends_that_stream(tmp_path: Path, payload: str) -> None:
    async with faulty(tmp_path) as world:
        client = world.connect()
        await client.open()
        await client.send(f"<iq type='get' id='q'><{payload} xmlns='urn:bug'/></iq>")
        await client.expect_closed("internal-server-error")


@pytest.mark.asyncio
async def test_a_connection_that_cannot_be_written_to_costs_nobody_else_anything() -> None:
    async with World() as world:
        alice, bob, carol = await world.login("alice"), await world.login("bob"), await world.login("carol")

        def fail(data: bytes) -> None:
            raise RuntimeError("a bug in a transport")

        bob.transport.receive = fail
        await alice.send(message(bob, "hi") + message(carol, "hi"))
        assert (await carol.receive()).findtext("{jabber:client}body") == "hi"
        bob.transport.receive = lambda data: None
        await alice.send(message(carol, "again"))
        assert (await carol.receive()).findtext("{jabber:client}body") == "again"


@pytest.mark.asyncio
async def test_refusals_do_not_pile_up() -> None:
    async with World() as world:
        alice = await world.login("alice")
        for _ in range(3):
            await alice.send("<message to='nobody@localhost' type='groupchat'><body>x</body></message>" * 50)
            await alice.receive_all()
            gc.collect()
        kept = [error for error in gc.get_objects() if isinstance(error, StanzaError)]
        assert not [error for error in kept if error.__traceback__ is not None]
