"""What plugins send, to one or many, what they ask, and presence that they change."""

import asyncio
from pathlib import Path

import pytest

from xmppd import ns
from xmppd.core import questions, sending
from xmppd.errors import StanzaError
from xmppd.plugin import element
from xmppd.testing import World

MESSAGE, PRESENCE, IQ = (f"{{{ns.CLIENT}}}{kind}" for kind in ("message", "presence", "iq"))
BODY = f"{{{ns.CLIENT}}}body"
PING = f"{{{ns.PING}}}ping"

ECHO = '''
from xmppd.plugin import Kept, Plugin, StanzaError, element, service

class Echo(Plugin):
    """Answers what it is asked."""
    seen = Kept(list)

    @service("echo")
    def answer(self, origin, stanza, to):
        self.seen.append(stanza.type)
        if stanza.payload.endswith(("fail", "query")):
            raise StanzaError("not-allowed", "Not so.")
        return element("{urn:xmppd:x:0}x", {"from": origin.full, "to": to.full})
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "echo.py").write_text(ECHO)
    return tmp_path


# to one


@pytest.mark.asyncio
async def test_a_stanza_of_each_kind_from_the_server_or_a_host_of_its_own(folder: Path) -> None:
    async with World(plugins=("echo",), plugin_folders=(folder,)) as world:
        server, bob = world.app.server, await world.login("bob")
        await server.send(element(MESSAGE, {"to": "BOB@localhost"}, element(BODY, None, "hi")))
        await bob.expect("<message from='localhost' to='bob@localhost'><body>hi</body></message>")
        await server.send(element(PRESENCE, {"to": bob.jid, "from": "room@echo.localhost/x"}))
        await bob.expect(f"<presence from='room@echo.localhost/x' to='{bob.jid}'/>")
        await server.send(element(IQ, {"to": bob.jid, "type": "result", "id": "x"}))
        await bob.expect(f"<iq from='localhost' to='{bob.jid}' type='result' id='x'/>")


@pytest.mark.asyncio
async def test_a_refusal_is_told_to_who_sends() -> None:
    async with World() as world:
        for to, condition in (
            ("bob@localhost", "service-unavailable"),
            ("bob@elsewhere.example", "remote-server-not-found"),
            ("@", "jid-malformed"),
            ("", "bad-request"),
        ):
            with pytest.raises(StanzaError) as caught:
                await world.app.server.send(element(MESSAGE, {"to": to}))
            assert caught.value.condition == condition
        with pytest.raises(ValueError, match="no host of this server"):
            await world.app.server.send(
                element(MESSAGE, {"to": "bob@localhost", "from": "x@elsewhere.example"})
            )
        with pytest.raises(ValueError, match="is no stanza"):
            await world.app.server.send(element("{urn:x}message", {"to": "bob@localhost"}))


# to many


@pytest.mark.asyncio
async def test_copies_for_those_who_are_there() -> None:
    async with World() as world:
        server = world.app.server
        alice, silent = await world.login("alice", "a"), await world.login("alice", "silent", priority=-1)
        other, carol = await world.login("alice", "b"), await world.bind("carol")
        await alice.receive_all(), await silent.receive_all()
        accounts = ["alice@localhost", "bob@localhost", "carol@localhost", "nobody@localhost"]
        news = element(MESSAGE, {"type": "headline"}, element(BODY, None, "news"))
        assert await server.send_many(accounts, news) == 2
        for client in (alice, other):
            await client.expect(
                "<message from='localhost' to='alice@localhost' type='headline'><body>news</body></message>"
            )
        assert await server.send_many(accounts, element(PRESENCE, {"from": "room@localhost"})) == 3
        for client in (alice, other, silent):
            await client.expect("<presence from='room@localhost' to='alice@localhost'/>")
        await carol.expect_nothing()
        with pytest.raises(ValueError, match="one receiver"):
            await server.send_many(accounts, element(IQ))


@pytest.mark.asyncio
async def test_others_get_their_turn_between_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        await world.login("alice")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        monkeypatch.setattr(sending, "SLICE_SECONDS", 0.0)
        counting = asyncio.ensure_future(count())
        assert await world.app.server.send_many(["alice@localhost"] * 50, element(MESSAGE)) == 50
        counting.cancel()
        assert turns >= 50


WATCH = """
from xmppd import hooks
from xmppd.plugin import Kept, Plugin, StanzaError

class Watch(Plugin):
    seen = Kept(list)

    @hooks.message_for
    async def block(self, account, message):
        if account.startswith("bob"):
            raise StanzaError("service-unavailable")
        return message

    @hooks.message_routed
    def note(self, origin, message, account, outcome):
        self.seen.append((origin.full, account, outcome.name))

    @hooks.presence_for
    def hide(self, account, presence):
        return hooks.DROP if account.startswith("bob") else presence
"""


@pytest.mark.asyncio
async def test_plugins_have_a_part_in_many_copies_too(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(WATCH)
    async with World(plugins=("watch", "offline"), plugin_folders=(tmp_path,)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        everybody = ("alice@localhost", "bob@localhost", "carol@localhost")
        assert await world.app.server.send_many(everybody, element(MESSAGE)) == 1
        await alice.expect("<message from='localhost' to='alice@localhost'/>")
        await world.app.server.send_many(everybody, element(PRESENCE))
        await alice.expect("<presence from='localhost' to='alice@localhost'/>")
        await bob.expect_nothing()
        assert world.plugin("watch").seen == [
            ("localhost", "alice@localhost", "DELIVERED"),
            ("localhost", "bob@localhost", "REFUSED"),
        ]


# asking


async def asked(world: World, to: str, **more: str) -> asyncio.Future[object]:
    question = asyncio.ensure_future(world.app.server.ask(to, element(PING), **more))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return question


@pytest.mark.asyncio
async def test_a_session_answers() -> None:
    async with World() as world:
        alice = await world.login("alice")
        question = await asked(world, alice.jid)
        iq = await alice.expect(
            f"<iq type='get' id='*' from='localhost' to='{alice.jid}'><ping xmlns='{ns.PING}'/></iq>"
        )
        await alice.send(f"<iq type='result' id='{iq.get('id')}' to='localhost'><x xmlns='urn:x'/></iq>")
        answer = await question
        assert getattr(answer, "tag", None) == "{urn:x}x"
        assert len(world.app.questions) == 0
        assert len(world.app.timers) == 0


@pytest.mark.asyncio
async def test_an_empty_result_and_an_error() -> None:
    async with World() as world:
        alice = await world.login("alice")
        question = await asked(world, alice.jid)
        id = (await alice.receive()).get("id")
        await alice.send(f"<iq type='result' id='{id}' to='localhost'/>")
        assert await question is None
        for error, condition in (
            (f"<not-allowed xmlns='{ns.STANZA_ERRORS}'/>", "not-allowed"),
            ("<strange xmlns='urn:x'/>", "undefined-condition"),
        ):
            question = await asked(world, alice.jid)
            id = (await alice.receive()).get("id")
            await alice.send(
                f"<iq type='error' id='{id}' to='localhost'><error type='cancel'>{error}</error></iq>"
            )
            with pytest.raises(StanzaError) as caught:
                await question
            assert caught.value.condition == condition


@pytest.mark.asyncio
async def test_only_who_was_asked_can_answer() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        twin = await world.login("alice", "twin")
        await alice.receive_all()
        question = await asked(world, alice.jid)
        id = (await alice.receive()).get("id")
        for other in (bob, twin):
            await other.send(f"<iq type='result' id='{id}' to='localhost'><lie xmlns='urn:x'/></iq>")
            await other.send(f"<iq type='result' id='{id}' from='{alice.jid}' to='localhost'/>")
        await alice.send(f"<iq type='result' id='x{id}' to='localhost'/>")
        await alice.send(f"<iq type='result' id='{id}' to='alice@localhost'/>")
        assert not question.done()
        await alice.send(f"<iq type='result' id='{id}' to='localhost'/>")
        await alice.send(f"<iq type='result' id='{id}' to='localhost'/>")
        assert await question is None


@pytest.mark.asyncio
async def test_no_answer_in_time_or_no_session_any_more() -> None:
    async with World() as world:
        alice = await world.login("alice")
        question = await asked(world, alice.jid)
        await world.advance(29)
        assert not question.done()
        await world.advance(2)
        with pytest.raises(StanzaError, match="remote-server-timeout"):
            await question
        question = await asked(world, alice.jid)
        await alice.drop()
        with pytest.raises(StanzaError, match="recipient-unavailable"):
            await question
        with pytest.raises(StanzaError, match="service-unavailable"):
            await (await asked(world, alice.jid))
        assert len(world.app.questions) == len(world.app.timers) == 0


@pytest.mark.asyncio
async def test_open_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MOST", 2)
    async with World() as world:
        alice = await world.login("alice")
        open_ = [await asked(world, alice.jid) for _ in range(2)]
        with pytest.raises(StanzaError, match="resource-constraint"):
            await (await asked(world, alice.jid))
        open_[0].cancel()
        await asyncio.sleep(0)
        third = await asked(world, alice.jid)
        assert not third.done()
        for question in (*open_, third):
            question.cancel()


@pytest.mark.asyncio
async def test_a_service_and_the_server_itself_answer_and_a_service_asks(folder: Path) -> None:
    async with World(plugins=("echo", "ping"), plugin_folders=(folder,)) as world:
        server, alice = world.app.server, await world.login("alice")
        found = await server.ask("x@echo.localhost", element("{urn:x}x"))
        assert found is not None
        assert dict(found.items()) == {"from": "localhost", "to": "x@echo.localhost"}
        with pytest.raises(StanzaError, match="not-allowed: Not so"):
            await server.ask("echo.localhost", element("{urn:x}fail"))
        assert await server.ask("localhost", element(PING)) is None
        for host in ("localhost", "echo.localhost"):  # neither has a roster
            with pytest.raises(StanzaError, match=r"service-unavailable|not-allowed"):
                await server.ask(host, element(f"{{{ns.ROSTER}}}query"), sender=host)
        with pytest.raises(StanzaError, match="remote-server-not-found"):
            await server.ask("elsewhere.example", element(PING))
        question = await asked(world, alice.jid, sender="room@echo.localhost")
        id = (await alice.receive()).get("id")
        world.plugin("echo").seen.clear()
        await alice.send(f"<iq type='result' id='{id}' to='room@echo.localhost'/>")
        assert await question is None
        await alice.send(f"<iq type='result' id='{id}' to='room@echo.localhost'/>")
        assert world.plugin("echo").seen == ["result"], "an answer to nothing is for the service to look at"


# sessions


@pytest.mark.asyncio
async def test_sessions_by_name_and_resources_wherever_they_are() -> None:
    async with World() as world:
        alice, server = await world.login("alice"), world.app.server
        await world.bind("alice", "silent")
        assert server.session(alice.jid) is alice.session
        assert server.session("alice@localhost/gone") is None
        assert server.locate("alice@localhost") == (alice.session,)
        assert server.locate("bob@localhost") == ()


@pytest.mark.asyncio
async def test_presence_changed_by_a_plugin_is_that_of_the_session() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        shown = element(PRESENCE, None, element(f"{{{ns.CLIENT}}}status", None, "in a match"))
        await world.app.server.set_presence(alice.session, shown)
        for client in (alice, bob):
            await client.expect(
                f"<presence from='{alice.jid}' to='{client.bare}'><status>in a match</status></presence>"
            )
        bad = element(PRESENCE, None, element(f"{{{ns.CLIENT}}}priority", None, "high"))
        with pytest.raises(StanzaError, match="bad-request"):
            await world.app.server.set_presence(alice.session, bad)
        await alice.expect_nothing()
        with pytest.raises(ValueError, match="is no presence"):
            await world.app.server.set_presence(alice.session, element(MESSAGE, {"to": bob.jid}))
        gone = alice.session
        await alice.drop()
        await world.app.server.set_presence(gone, shown)
        assert [tree.get("type") for tree in await bob.receive_all()] == ["unavailable"]
