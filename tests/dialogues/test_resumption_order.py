"""What comes for a session that another node had, while it goes on here: nothing of it overtakes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from managing import bodies, enable, ready
from several import several

from xmppd import ns
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

PLUGINS = ("offline", "archive")
BARE, FULL = "alice@localhost", "alice@localhost/r"


def chat(to: str, body: str, type: str = "chat", more: str = "") -> str:
    return f"<message to='{to}' type='{type}' id='{body}'><body>{body}</body>{more}</message>"


class Moments:
    """Those in which a node waits while it takes a session, each until it is `over`: when it was `given`, is
    `bound`, and is `made` of what was given.
    """

    def __init__(self, world: World, node: int, *names: str) -> None:
        self.waiting: asyncio.Future[None] | None = None
        self.world = world
        app = world.apps[node]
        if "given" in names:
            app.handover.fetch = self.behind(app.handover.fetch)  # type: ignore[method-assign]
        if "bound" in names:
            app.binding.announce = self.at(app.binding.announce)  # type: ignore[method-assign]
        if "made" in names:
            app.handover.take = self.behind(app.handover.take)  # type: ignore[method-assign]

    def behind(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def held(*arguments: Any) -> Any:
            found = await work(*arguments)
            await self._held()
            return found

        return held

    def at(self, work: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
        async def held(*arguments: Any) -> None:
            await self._held()
            if (waiting := work(*arguments)) is not None:
                await waiting

        return held

    async def _held(self) -> None:
        self.waiting = asyncio.get_running_loop().create_future()
        await self.waiting
        self.waiting = None

    async def over(self) -> None:
        """The next one has come."""
        assert self.waiting is not None
        self.waiting.set_result(None)
        await self.world.settle()


async def leave(world: World, alice: Client, origin: str) -> None:
    """Her session is detached where it was, or kept by another node since that one was told to stop."""
    for client in world.clients:
        await client.receive_all()
    if origin == "there":
        await alice.drop()
    else:
        await world.drain(0)


async def come_back(world: World, id: str, node: int, *moments: str) -> tuple[Client, Moments]:
    """Alice asks to resume her session there."""
    again = await ready(world, "alice", node=node)
    held = Moments(world, node, *moments)
    again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
    await world.settle()
    return again, held


@pytest.mark.parametrize(
    ("origin", "node", "sender", "moment"),
    [
        ("there", 1, 1, "bound"),
        ("there", 1, 2, "made"),
        ("kept", 1, 1, "made"),
        ("kept", 1, 2, "bound"),
        ("kept", 2, 1, "bound"),
    ],
)
async def test_what_was_stored_comes_before_what_came_while_it_was_taken(
    redis_url: str, origin: str, node: int, sender: int, moment: str
) -> None:
    async with World(plugins=PLUGINS, nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", node=sender)
        id = await enable(alice)
        await leave(world, alice, origin)
        again, moments = await come_back(world, id, node, "given", moment)
        await bob.send(chat(BARE, "1"))  # nobody is there
        await moments.over()
        await bob.send(chat(FULL, "2") + chat(BARE, "3") + chat(FULL, "4", "normal") + chat(FULL, "5"))
        await moments.over()
        assert moments.waiting is None
        await bob.send(chat(FULL, "6"))
        await world.advance(15)
        assert bodies(await again.receive_all()) == [*"123456"]
        assert not [one for one in await bob.receive_all() if one.get("type") == "error"]
        await bob.send(chat(FULL, "7"))
        assert bodies(await again.receive_all()) == ["7"], "and nothing is in the way"


async def test_who_was_not_available_is_given_what_is_for_her_at_once(redis_url: str) -> None:
    async with World(plugins=PLUGINS, nodes=2, settings=several(redis_url)) as world:
        alice, bob = await world.bind("alice", "r", node=0), await world.login("bob", node=1)
        id = await enable(alice)
        await leave(world, alice, "kept")
        await bob.send(chat(BARE, "1"))
        again, moments = await come_back(world, id, 1, "bound")
        await bob.send(chat(FULL, "2"))
        await moments.over()
        assert bodies(await again.receive_all()) == ["2"]
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def test_where_nothing_is_stored_it_comes_when_it_is_taken(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", node=1)
        id = await enable(alice)
        await leave(world, alice, "kept")
        again, moments = await come_back(world, id, 1, "bound")
        await bob.send(chat(FULL, "1") + chat(FULL, "2", more=f"<no-store xmlns='{ns.HINTS}'/>"))
        await moments.over()
        assert bodies(await again.receive_all()) == ["1", "2"]
        assert bodies(await bob.receive_all()) == []


@pytest.mark.parametrize("node", [1, 2])
async def test_what_is_for_her_alone_is_given_to_no_other_device_meanwhile(redis_url: str, node: int) -> None:
    async with World(plugins=PLUGINS, nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", node=1)
        other = await world.login("alice", "other", node=node)
        await alice.receive_all()
        id = await enable(alice)
        await leave(world, alice, "there")
        again, moments = await come_back(world, id, 1, "bound")
        await bob.send(chat(FULL, "1") + chat(BARE, "2"))
        await moments.over()
        assert bodies(await other.receive_all()) == ["2"], "nobody else was available"
        assert bodies(await again.receive_all()) == ["1"]
        await world.advance(30)
        assert bodies(await other.receive_all()) == bodies(await again.receive_all()) == []


async def test_what_she_breaks_off_before_she_has_it_goes_to_who_is_there(redis_url: str) -> None:
    async with World(plugins=PLUGINS, nodes=2, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", node=1)
        other = await world.login("alice", "other", node=1)
        await alice.receive_all()
        id = await enable(alice)
        await leave(world, alice, "there")
        again, moments = await come_back(world, id, 1, "bound")
        await bob.send(chat(FULL, "1"))
        again.transport.close()
        await moments.over()
        await world.advance(30)
        assert bodies(await other.receive_all()) == ["1"]


async def test_what_she_shows_as_soon_as_she_is_back_is_newer_than_what_she_showed(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        id = await enable(alice)
        await leave(world, alice, "there")
        await bob.receive_all()
        again = await ready(world, "alice", node=1)
        await again.send(
            f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/><presence><show>away</show></presence>"
        )
        shown = [one.findtext(f"{{{ns.CLIENT}}}show") for one in await bob.receive_all()]
        assert shown[-1] == "away"


@pytest.mark.parametrize("to", [BARE, FULL])
async def test_where_she_was_detached_order_holds(to: str) -> None:
    async with World(plugins=PLUGINS, nodes=1) as world:
        alice, bob = await world.login("alice", "r"), await world.login("bob")
        id = await enable(alice)
        await alice.receive_all()
        await alice.drop()
        await bob.send(chat(BARE, "1"))
        again = await ready(world, "alice")
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await bob.send(chat(to, "2"))
        await bob.send(chat(BARE, "3"))
        assert bodies(await again.receive_all()) == ["1", "2", "3"]


async def test_no_other_plugin_keeps_her_from_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("announce", *PLUGINS), nodes=1) as world:
        bob, waiting = await world.login("bob"), asyncio.get_running_loop().create_future()
        await bob.send(chat(BARE, "1"))
        announce = world.plugin("announce")
        await announce._set_motd("", "news")
        is_first = announce._is_first

        async def later(*about: Any) -> bool:
            await asyncio.shield(waiting)
            return bool(await is_first(*about))

        monkeypatch.setattr(announce, "_is_first", later)
        alice = await world.bind("alice", "r")
        alice.write("<presence/>")
        await world.settle()
        await bob.send(chat(BARE, "2"))
        waiting.set_result(None)
        await world.settle()
        assert [one for one in bodies(await alice.receive_all()) if one.isdigit()] == ["1", "2"]
