"""What plugins may do about logins: a plugin with tokens, bans and sessions for a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import until

from xmppd import ns
from xmppd.testing import START, Client, World

TOKENS = '''
"""Tokens in place of passwords, made by a game; who is banned stays out."""
import asyncio
import time

from xmppd import hooks
from xmppd.plugin import Identity, Plugin, SaslError, iq_get, element


class Tokens(Plugin):
    async def start(self):
        self.tokens = {}
        self.banned = set()
        self.failures = []
        self.seen = []
        self.waiting = [0]
        self.expired = []
        self.renews = 0.0
        self.opened = asyncio.Event()
        self.opened.set()

    @hooks.password_check
    def redeem(self, jid, password, channel):
        if not password.startswith("token-"):
            return None
        if password == "token-slow":
            return self.slowly(jid)
        if (jid.local, password) not in self.tokens:
            raise SaslError("not-authorized")
        return self.make(jid)

    async def slowly(self, jid):
        self.waiting[0] += 1
        await self.opened.wait()
        return Identity(jid.local)

    async def make(self, jid):
        if not await self.server.account_exists(jid.bare):
            await self.server.accounts.provision(jid.bare)
        facts = {"level": self.tokens.get((jid.local, "token-1"), 0)}
        return Identity("somebody else", facts=facts, expires=self.now() + 60)

    @hooks.authenticated
    async def admit(self, login, channel):
        self.seen.append((login.account, login.mechanism, login.peer, channel.secure, dict(login.facts)))
        self.waiting[0] += 1
        await self.opened.wait()
        if login.account in self.banned or login.peer in self.banned:
            raise SaslError("account-disabled", "You are banned.")

    @hooks.login_failed
    def note(self, attempt, condition):
        self.failures.append((attempt.account, attempt.channel.peer, attempt.mechanism, condition))

    @hooks.session_expired
    async def renew(self, session):
        self.expired.append(session.full)
        if self.renews:
            self.server.set_expiry(session, self.now() + self.renews)
'''


def tokens_of(world: World) -> Any:
    """The plugin of the first node, with whose state the others go on, too."""
    first, *others = world.plugins("tokens")
    for other in others:
        for name in ("tokens", "banned", "failures", "seen", "waiting", "expired", "opened"):
            setattr(other, name, getattr(first, name))
    return first


@asynccontextmanager
async def game(tmp_path: Path, **settings: Any) -> AsyncIterator[World]:
    (tmp_path / "tokens.py").write_text(TOKENS)
    async with World(plugins=("tokens", "ping"), plugin_folders=(tmp_path,), settings=settings) as world:
        yield world


async def logged_in(world: World, user: str, password: str, peer: str = "192.0.2.1") -> Client:
    client = world.connect(peer)
    await client.open()
    answer = await client.authenticate(user, password)
    assert answer.tag == f"{{{ns.SASL}}}success", answer[0].tag
    await client.open()
    await client.bind()
    return client


async def refused(world: World, user: str, password: str, peer: str = "192.0.2.1") -> str:
    client = world.connect(peer)
    await client.open()
    answer = await client.authenticate(user, password)
    assert answer.tag == f"{{{ns.SASL}}}failure"
    return answer[0].tag.rpartition("}")[2]


@pytest.mark.asyncio
async def test_a_token_in_place_of_a_password_makes_the_account(tmp_path: Path) -> None:
    async with game(tmp_path) as world:
        tokens = tokens_of(world)
        assert await refused(world, "zoe", "token-1") == "not-authorized"
        assert not await world.app.server.account_exists("zoe@localhost")
        tokens.tokens["zoe", "token-1"] = 7
        zoe = await logged_in(world, "Zoe", "token-1")
        assert zoe.bare == "zoe@localhost", "whose name it is the plugin does not decide"
        assert zoe.session.facts == {"level": 7}
        assert zoe.session.expires == START + 60
        assert not zoe.session.is_anonymous
        assert [info.account async for info in world.app.accounts.list()].count("zoe@localhost") == 1
        assert await refused(world, "zoe", "") == "not-authorized"
        assert await refused(world, "zoe", "x") == "not-authorized"
        alice = await logged_in(world, "alice", "secret")
        assert alice.session.facts == {}
        assert alice.session.expires is None


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["alice@localhost", "192.0.2.1"])
async def test_a_policy_refuses_who_has_proved_who_they_are(tmp_path: Path, what: str) -> None:
    async with game(tmp_path) as world:
        tokens = tokens_of(world)
        tokens.banned.add(what)
        assert await refused(world, "alice", "secret") == "account-disabled"
        assert tokens.seen == [("alice@localhost", "PLAIN", "192.0.2.1", False, {})]
        assert tokens.failures == [("alice@localhost", "192.0.2.1", "PLAIN", "account-disabled")]
        assert not any(app.sessions.by_full for app in world.apps)
        tokens.banned.clear()
        await logged_in(world, "alice", "secret")


@pytest.mark.asyncio
async def test_a_policy_is_not_asked_of_who_proved_nothing(tmp_path: Path) -> None:
    async with game(tmp_path) as world:
        tokens = tokens_of(world)
        assert await refused(world, "alice", "wrong") == "not-authorized"
        assert await refused(world, "a b", "wrong") == "not-authorized"
        assert tokens.seen == []
        assert tokens.failures == [
            ("alice@localhost", "192.0.2.1", "PLAIN", "not-authorized"),
            ("", "192.0.2.1", "PLAIN", "not-authorized"),
        ]


@pytest.mark.asyncio
@pytest.mark.parametrize("password", ["token-slow", "secret"])
@pytest.mark.parametrize("change", ["disable", "password", "anew"])
async def test_the_account_changes_while_a_plugin_waits(tmp_path: Path, password: str, change: str) -> None:
    async with game(tmp_path) as world:
        accounts, tokens = world.app.accounts, tokens_of(world)
        await logged_in(world, "alice", "secret")
        before = tokens.waiting[0]
        tokens.opened.clear()
        client = world.connect()
        await client.open()
        waiting = asyncio.ensure_future(client.authenticate("alice", password))
        await until(lambda: tokens.waiting[0] > before)
        if change == "disable":
            await accounts.disable("alice@localhost")
        elif change == "password":
            await accounts.set_password("alice@localhost", "new")
        else:
            await accounts.remove("alice@localhost")
            await accounts.create("alice@localhost", "secret")
        await world.tell_each_other()
        tokens.opened.set()
        assert (await waiting).tag == f"{{{ns.SASL}}}failure"
        assert not any(app.sessions.of("alice@localhost") for app in world.apps)


@pytest.mark.asyncio
async def test_a_session_whose_time_is_over_is_told_of_and_then_closed(tmp_path: Path) -> None:
    async with game(tmp_path, auth={"expiry_grace": 30}) as world:
        tokens = tokens_of(world)
        tokens.tokens["zoe", "token-1"] = 7
        zoe, alice = await logged_in(world, "zoe", "token-1"), await logged_in(world, "alice", "secret")
        await world.advance(59)
        assert tokens.expired == []
        await world.advance(2)
        assert tokens.expired == [zoe.jid]
        await zoe.expect_nothing()
        await world.advance(28)
        assert (await zoe.ask("get", f"<ping xmlns='{ns.PING}'/>")).get("type") == "result"
        await world.advance(2)
        await zoe.expect_closed("reset")
        assert not alice.closed
        await world.advance(200)
        assert tokens.expired == [zoe.jid]


@pytest.mark.asyncio
async def test_a_session_is_given_more_time(tmp_path: Path) -> None:
    async with game(tmp_path) as world:
        tokens = tokens_of(world)
        tokens.tokens["zoe", "token-1"] = 7
        for plugin in world.plugins("tokens"):
            plugin.renews = 100.0
        zoe = await logged_in(world, "zoe", "token-1")
        await world.advance(61)
        assert START + 160 <= (zoe.session.expires or 0.0) <= START + 161
        await world.advance(90)
        assert tokens.expired == [zoe.jid]
        zoe.app.server.set_expiry(zoe.session, None)
        await world.advance(50)
        assert tokens.expired == [zoe.jid]
        for plugin in world.plugins("tokens"):
            plugin.renews = 0.0
        zoe.app.server.set_expiry(zoe.session, world.clock.now() + 1)
        await world.advance(33)
        await zoe.expect_closed("reset")
        assert len(tokens.expired) == 2


@pytest.mark.asyncio
async def test_a_mechanism_of_a_plugin_brings_facts(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(
        '''
"""A mechanism that knows more than a name."""
from xmppd.plugin import Identity, Plugin, Success


class Exchange:
    account = ""

    def step(self, data):
        return Success(Identity("alice", facts={"by": data.decode()}, expires=1e12))


class Mechanism:
    name, priority, needs_tls = "X-ASK", 500, False

    def available(self, channel):
        return True

    def start(self, channel):
        return Exchange()


class Asks(Plugin):
    def mechanisms(self):
        return [Mechanism()]
'''
    )
    async with World(plugins=("asks",), plugin_folders=(tmp_path,)) as world:
        client = world.connect()
        await client.open()
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='X-ASK'>Ym9i</auth>")
        assert (await client.receive()).tag == f"{{{ns.SASL}}}success"
        await client.open()
        await client.bind()
        assert client.session.facts == {"by": "bob"}
        assert client.session.login.mechanism == "X-ASK"


DOORS = '''
"""Another way to log in than SASL."""
from xmppd.plugin import Identity, Phase, Plugin, SaslError, element, negotiates, offers, serialize

NS = "urn:test:door"


class Door(Plugin):
    @offers(Phase.LOGIN)
    def offer(self, stream):
        return serialize(element(f"{{{NS}}}door"))

    @negotiates(Phase.LOGIN, f"{{{NS}}}knock")
    async def knock(self, stream, stanza):
        try:
            login = await self.server.admit(stream, Identity(stanza.text, facts={"by": "door"}), "door")
        except SaslError as error:
            stream.write(serialize(element(f"{{{NS}}}shut", None, error.condition)))
        else:
            stream.write(serialize(element(f"{{{NS}}}open")))
            stream.authenticated(login)
'''


@pytest.mark.asyncio
async def test_another_way_to_log_in_passes_the_same_gate(tmp_path: Path) -> None:
    (tmp_path / "door.py").write_text(DOORS)
    (tmp_path / "tokens.py").write_text(TOKENS)
    async with World(plugins=("tokens", "door"), plugin_folders=(tmp_path,)) as world:
        tokens = tokens_of(world)
        await world.app.accounts.disable("bob@localhost")
        tokens.banned.add("carol@localhost")
        client = world.connect("192.0.2.1")
        await client.open()
        for name, said in (
            ("nobody", "not-authorized"),
            ("a b", "not-authorized"),
            ("bob", "account-disabled"),
            ("carol", "account-disabled"),
        ):
            await client.send(f"<knock xmlns='urn:test:door'>{name}</knock>")
            await client.expect(f"<shut xmlns='urn:test:door'>{said}</shut>")
        assert [failure[2:] for failure in tokens.failures] == [
            ("door", "not-authorized"),
            ("door", "not-authorized"),
            ("door", "account-disabled"),
            ("door", "account-disabled"),
        ]
        await client.send("<knock xmlns='urn:test:door'>Alice</knock>")
        await client.expect("<open xmlns='urn:test:door'/>")
        await client.bind()
        assert client.session.login.mechanism == "door"
        assert client.session.facts == {"by": "door"}
        await world.app.accounts.disable("alice@localhost")
        await client.expect_closed("not-authorized")


@pytest.mark.asyncio
async def test_a_proof_of_an_account_that_was_made_anew_meanwhile_is_worth_nothing(tmp_path: Path) -> None:
    (tmp_path / "door.py").write_text(
        DOORS.replace("        try:\n", "        await self.proved.wait()\n        try:\n", 1)
    )
    async with World(plugins=("door",), plugin_folders=(tmp_path,)) as world:
        proved = world.plugin("door").proved = asyncio.Event()
        accounts, client = world.app.accounts, world.connect()
        await client.open()
        await client.send("<knock xmlns='urn:test:door'>alice</knock>")
        await accounts.remove("alice@localhost")
        await accounts.create("alice@localhost", "another")
        proved.set()
        await client.expect("<shut xmlns='urn:test:door'>temporary-auth-failure</shut>")
        await client.send("<knock xmlns='urn:test:door'>alice</knock>")
        await client.expect("<open xmlns='urn:test:door'/>")
