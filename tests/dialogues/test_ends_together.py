"""Sessions of one account on several nodes that end at about the same time: what all were sent comes once,
and other nodes are asked once.
"""

import asyncio
import itertools
from typing import Any

import pytest
from managing import bodies, managed
from several import several

from xmppd import ns
from xmppd.cluster.calls import Calls
from xmppd.core.sessions import DETOUR
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

OFFLINE = ("offline",)
COPIES = f"<iq type='set' id='c'><enable xmlns='{ns.CARBONS}'/></iq>"


def chat(to: str, body: str) -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body></message>"


async def said(world: World, texts: str, sender: Client, receivers: list[Client]) -> None:
    for text in texts:
        await sender.send(chat("alice@localhost", text))
        await world.settle()
    for receiver in receivers:
        assert bodies(await receiver.receive_all()) == [*texts]


async def stored(world: World, node: int = 0) -> list[str]:
    """What the account's next session is given."""
    await world.settle()
    client = await world.bind("alice", node=node)
    await client.send("<presence/>")
    await world.settle()
    return bodies(await client.receive_all())


def end(client: Client, session: Any, app: Any) -> None:
    client.transport.close()
    app.binding.end(session)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30])
@pytest.mark.parametrize("nodes", [2, 3])
async def test_each_message_comes_once(redis_url: str, nodes: int, steps: int) -> None:
    async with World(nodes=nodes, plugins=OFFLINE, settings=several(redis_url)) as world:
        alices = [(await managed(world, "alice", f"r{node}", node=node))[0] for node in range(nodes)]
        for alice in alices:
            await alice.receive_all()
        bob = await world.login("bob", node=0)
        await said(world, "12345", bob, alices)
        ends = [(alice, alice.session, alice.app) for alice in alices]
        for one in ends if steps % 2 else reversed(ends):
            end(*one)
            for _ in range(steps):
                await asyncio.sleep(0)
        assert await stored(world) == [*"12345"]


async def test_what_one_has_and_the_other_has_not_comes_to_nobody_again(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alices = [(await managed(world, "alice", f"r{node}", node=node))[0] for node in (0, 1)]
        for alice in alices:
            await alice.receive_all()
        bob = await world.login("bob", node=0)
        await said(world, "123", bob, alices)
        await alices[1].send(f"<a xmlns='{ns.SM}' h='{alices[1].session.managed.sent}'/>")
        first = alices[0]
        end(first, first.session, first.app)
        await world.settle()
        assert bodies(await alices[1].receive_all()) == []
        await bob.expect_nothing()


@pytest.mark.parametrize("wants_copies", [True, False])
async def test_a_node_is_asked_once_for_all(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, wants_copies: bool
) -> None:
    asked: list[str] = []
    ask = Calls.ask

    async def noted(self: Calls, member: Any, name: str, *about: Any) -> Any:
        asked.append(name)
        return await ask(self, member, name, *about)

    monkeypatch.setattr(Calls, "ask", noted)
    async with World(nodes=2, plugins=(*OFFLINE, "carbons"), settings=several(redis_url)) as world:
        phone, _ = await managed(world, "alice", "phone", node=0)
        desk = await world.login("alice", "desk", node=1, **({"priority": -1} if wants_copies else {}))
        if wants_copies:
            await desk.send(COPIES)
            await world.advance(2)
        await phone.receive_all()
        await desk.receive_all()
        bob = await world.login("bob", node=0)
        for text in "123456":
            await bob.send(chat("alice@localhost", text))
            await world.advance(1)
        assert bodies(await phone.receive_all()) == [*"123456"]
        await desk.receive_all()
        asked.clear()
        end(phone, phone.session, phone.app)
        await world.settle()
        assert [name for name in asked if name.startswith("session")] == [
            "session copies" if wants_copies else "session fellows"
        ]
        assert bodies(await desk.receive_all()) == []
        await bob.expect_nothing()
        await desk.send("</stream:stream>")
        assert await stored(world) == []


@pytest.mark.parametrize("first", [0, 1])
async def test_what_is_written_to_two_in_two_seconds_is_not_lost(redis_url: str, first: int) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alices = [(await managed(world, "alice", name, node=0))[0] for name in ("one", "two")]
        bob = await world.login("bob", node=0)
        for alice in alices:
            await alice.receive_all()
        seconds = itertools.count(int(world.app.resumption.now()))
        world.apps[0].resumption.now = lambda: next(seconds)
        await said(world, "1", bob, alices)
        for alice in alices if first == 0 else reversed(alices):
            end(alice, alice.session, alice.app)
            await world.settle()
        assert await stored(world) == ["1"]


@pytest.mark.parametrize("first", [0, 1])
async def test_copies_that_nobody_has_acknowledged_are_not_had_where_seconds_differ(
    redis_url: str, first: int
) -> None:
    async with World(nodes=2, plugins=(*OFFLINE, "carbons"), settings=several(redis_url)) as world:
        now = world.apps[1].resumption.now
        world.apps[1].resumption.now = lambda: now() + 1.0  # or it comes there a moment later
        phone, _ = await managed(world, "alice", "phone", node=0)
        desk, _ = await managed(world, "alice", "desk", node=1)
        await desk.send("<presence><priority>-1</priority></presence>")
        await desk.send(COPIES)
        await world.advance(4)
        await desk.receive_all()
        await phone.receive_all()
        for client in (desk, phone):
            await client.send(f"<a xmlns='{ns.SM}' h='{client.session.managed.sent}'/>")
        bob = await world.login("bob", node=0)
        await bob.send(chat("alice@localhost", "1"))
        await world.settle()
        assert b"<body>1<" in phone.raw and b"<body>1<" in desk.raw
        for client in (phone, desk) if first == 0 else (desk, phone):
            end(client, client.session, client.app)
            await world.settle()
        assert await stored(world) == ["1"]


async def test_what_comes_while_something_is_on_a_detour_is_known_to_have_gone_to_all(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alices = [(await managed(world, "alice", name, node=1))[0] for name in ("one", "two")]
        await world.login("alice", "elsewhere", priority=-1, node=0)
        bob = await world.login("bob", node=0)
        for alice in alices:
            await alice.receive_all()
            alice.session.hold_messages(DETOUR)
        await said(world, "1", bob, alices)
        for alice in alices:
            alice.session.release_messages(DETOUR)
        first, second = [(alice, alice.session, alice.app) for alice in alices]
        end(*first)
        await world.settle()
        assert bodies(await alices[1].receive_all()) == [], "it has it"
        end(*second)
        assert await stored(world) == ["1"]


@pytest.mark.parametrize("nodes", [1, 2])
async def test_what_one_had_acknowledged_before_it_ended_comes_to_nobody_again(
    redis_url: str, nodes: int
) -> None:
    async with World(nodes=nodes, plugins=OFFLINE, settings=several(redis_url)) as world:
        alices = [
            (await managed(world, "alice", name, node=node % nodes))[0] for node, name in enumerate("ab")
        ]
        for alice in alices:
            await alice.receive_all()
        bob = await world.login("bob", node=0)
        await said(world, "12", bob, alices)
        await alices[1].send(f"<a xmlns='{ns.SM}' h='{alices[1].session.managed.sent}'/>")
        first, second = [(alice, alice.session, alice.app) for alice in alices]
        end(*second)
        await world.settle()
        end(*first)
        assert await stored(world) == []
