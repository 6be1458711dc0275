"""What waits for something before it is begun when its client resumes the session and sends it again."""

import asyncio
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from managing import ASK, SM, bodies, managed, ready, state
from several import several

from xmppd import ns
from xmppd.core.managed import FINISH_SECONDS
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

DOOR = """
import asyncio

from xmppd import hooks
from xmppd.plugin import Plugin

class Door(Plugin):
    '''Whoever comes first waits at one place, until it is opened.'''
    async def start(self):
        self.place, self.waiting, self.seen = "{place}", None, []

    def at(self, place, given):
        if place == self.place:
            self.seen.append(given)
            if self.waiting is None or self.waiting.cancelled():
                self.waiting = asyncio.get_running_loop().create_future()
                return True
        return False

    async def open(self, given):
        await self.waiting
        return given

    @hooks.message_sent.at(hooks.POLICY)
    def policy(self, session, message):
        return self.open(None) if self.at("policy", message) else None

    @hooks.message_sent.at(hooks.FILTER)
    def sent(self, session, message):
        return self.open(message) if self.at("filter", message) else message

    @hooks.message_for.at(hooks.FILTER)
    def received(self, account, message):
        return self.open(message) if self.at("receiver", message) else message

    @hooks.presence_sent.at(hooks.FILTER)
    def shown(self, session, presence):
        return self.open(presence) if self.at("presence", presence) else presence

    @hooks.iq_sent.at(hooks.FILTER)
    def asked(self, session, iq):
        return self.open(iq) if self.at("iq", iq) else iq
"""
RECORD = """
    @hooks.message_recorded
    def record(self, origin, message, to):
        return self.open(None) if self.at("record", message) else None
"""
PLACES = [(place, archive) for place in ("policy", "filter", "receiver") for archive in ("archive", "ping")]


def door(folder: Path, place: str, *plugins: str, **more: Any) -> World:
    more_places = RECORD if place == "record" else ""
    (folder / "door.py").write_text(DOOR.format(place=place) + more_places)
    return World(plugins=("door", *plugins), plugin_folders=(folder,), **more)


def chat(*texts: str) -> str:
    message = "<message to='bob@localhost' id='{0}' type='chat'><body>{0}</body></message>"
    return "".join(message.format(text) for text in texts)


def held(world: World, node: int = 0) -> asyncio.Future[None]:
    """What waits at the door of a node; the next one waits for itself."""
    plugin = world.plugin("door", node)
    found, plugin.waiting = plugin.waiting, None
    assert isinstance(found, asyncio.Future)
    return found


async def let(world: World, *waiting: asyncio.Future[None]) -> None:
    """Let these go on, one after the other, and whoever comes behind them."""
    for plugin in world.plugins("door"):
        plugin.place = ""
    for one in waiting:
        one.set_result(None)
        await world.settle()


async def come_back(world: World, old: Client, id: str, *, node: int = 0) -> tuple[Client, Element]:
    """A client that asks for a session of which something is under way, and what it is answered."""
    client = await ready(world, old.bare.partition("@")[0], node=node)
    client.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
    await world.settle()
    await world.advance(FINISH_SECONDS + 0.5)
    answer = await client.receive()
    client.jid = old.jid
    return client, answer


@pytest.mark.parametrize(("place", "other"), [*PLACES, ("record", "ping")])
async def test_what_is_not_begun_when_a_session_is_resumed_comes_once(
    tmp_path: Path, place: str, other: str
) -> None:
    """And so do those behind it, of which nothing is begun either."""
    async with door(tmp_path, place, "offline", other) as world:
        alice, id = await managed(world, "alice", "r", node=0)
        bob = await world.login("bob")
        await alice.send(chat("1", "2", "3"))
        first = held(world)
        assert bodies(await bob.receive_all()) == []
        await alice.drop()
        again, answer = await come_back(world, alice, id)
        assert answer.tag == f"{SM}resumed" and answer.get("h") == "0"
        await again.send(chat("1", "2", "3"))
        await let(world, first, held(world))
        assert bodies(await bob.receive_all()) == ["1", "2", "3"]
        await again.send(ASK)
        assert [answer.get("h") for answer in await again.receive_all() if answer.tag == f"{SM}a"] == ["3"]


async def test_what_was_given_up_counts_for_nothing_that_came_after_it(tmp_path: Path) -> None:
    async with door(tmp_path, "record", "offline") as world:
        alice, id = await managed(world, "alice", "r", node=0)
        await alice.send(chat("1"))
        first = held(world)
        await alice.drop()
        again, answer = await come_back(world, alice, id)
        assert answer.get("h") == "0"
        await again.send(chat("1"))
        second = held(world)
        await let(world, first)
        assert state(again).h == 0, "it waits still"
        await let(world, second)
        assert state(again).h == 1


@pytest.mark.parametrize("kind", ["presence", "iq"])
async def test_other_stanzas_are_begun_once_too(tmp_path: Path, kind: str) -> None:
    stanza = {
        "presence": "<presence><status>here</status></presence>",
        "iq": "<iq type='set' id='i' to='bob@localhost/r'><x xmlns='urn:x'/></iq>",
    }[kind]
    async with door(tmp_path, "") as world:
        alice, id = await managed(world, "alice", "r", node=0)
        bob = await world.login("bob", "r")
        await world.befriend(alice, bob)
        await bob.receive_all()
        before = state(alice).h
        world.plugin("door").place = kind
        await alice.send(stanza)
        first = held(world)
        await alice.drop()
        again, answer = await come_back(world, alice, id)
        assert answer.tag == f"{SM}resumed" and answer.get("h") == str(before)
        await again.send(stanza)
        await let(world, first, held(world))
        assert len([one for one in await bob.receive_all() if one.tag.endswith(kind)]) == 1


async def test_on_another_node_it_comes_once(redis_url: str, tmp_path: Path) -> None:
    more = several(redis_url)
    async with door(tmp_path, "record", "offline", nodes=2, settings=more) as world:
        alice, id = await managed(world, "alice", "r", node=0)
        bob = await world.login("bob", node=0)
        await alice.send(chat("1", "2"))
        first = held(world)
        await alice.drop()
        again, answer = await come_back(world, alice, id, node=1)
        assert answer.tag == f"{SM}resumed" and answer.get("h") == "0"
        await again.send(chat("1", "2"))
        await let(world, first, held(world, 1))
        assert bodies(await bob.receive_all()) == ["1", "2"]


@pytest.mark.parametrize("node", [0, 1])
async def test_of_a_session_that_has_ended_it_comes_once(redis_url: str, tmp_path: Path, node: int) -> None:
    """Its client is told how many were handled, and sends the others again."""
    more = several(redis_url)
    async with door(tmp_path, "record", "offline", nodes=2, settings=more) as world:
        alice, id = await managed(world, "alice", "r", node=0)
        bob = await world.login("bob", node=0)
        await alice.send(chat("1", "2"))
        first = held(world)
        world.app.binding.end(alice.session)
        await world.settle()
        again, answer = await come_back(world, alice, id, node=node)
        assert answer.tag == f"{SM}failed" and answer.get("h") in ("0", None)
        await again.bind("r")
        await again.send(chat("1", "2"))
        await let(world, first, held(world, node))
        assert bodies(await bob.receive_all()) == ["1", "2"]
