"""What was stored comes before what is newer, whatever becomes of who was to be given it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import pytest
from several import CHAT, several
from slowly import LIMITS

from tests.plugins.test_offline import become_available, bodies, chat
from tests.plugins.test_offline_races import SharedStore
from xmppd.core.sessions import Session
from xmppd.testing import World

pytestmark = pytest.mark.asyncio


@pytest.mark.one_node("has the other node made up")
async def test_what_another_node_stores_before_what_was_read_comes_before_what_was_not(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = several(redis_url), SharedStore(":memory:")
    async with World(plugins=("offline",), settings=settings, store=store) as world:
        monkeypatch.setattr(sys.modules[type(world.plugin("offline")).__module__], "PAGE", 1)
        await chat(await world.login("alice"), "bob@localhost", "first", "second", "third")
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["first", "late", "second", "third"]


async def turns() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


@pytest.mark.one_node("has two nodes of its own")
async def test_what_is_for_who_waits_on_another_node_goes_to_no_other_resource(redis_url: str) -> None:
    settings = {**several(redis_url), "limits": LIMITS}
    async with World(plugins=("offline",), settings=settings, nodes=2) as world:
        alice, first = await world.login("alice", node=0), await world.bind("bob", node=0)
        waiting = [f"message {number} {'x' * 3000}" for number in range(30)]
        await chat(alice, first.bare, *waiting)
        other = await world.bind("bob", node=1)
        first.stop_reading()
        first.write("<presence/>")
        while b"message 0" not in first.transport.held:
            await turns()
        other.write("<presence/>")
        while not other.app.sessions.by_full[other.jid].is_flushing:
            await turns()
        alice.write(CHAT.format(to=other.jid, body="for the other"))
        async with asyncio.timeout(10):
            while not any([b"the other" in row["stanza"] async for row in rows_of(world)]):
                await turns()
                await world.tell_each_other()
        await first.read_on()
        assert await bodies(first) == waiting
        assert await bodies(other) == ["for the other"]
        assert [row async for row in rows_of(world)] == []


def rows_of(world: World) -> AsyncIterator[Mapping[str, Any]]:
    """All that is stored."""
    found: AsyncIterator[Mapping[str, Any]] = world.plugin("offline").queue.everything()
    return found


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.parametrize("priority", [0, 5])
async def test_what_one_does_not_take_of_what_was_stored_comes_to_others_before_what_is_newer(
    priority: int,
) -> None:
    """They were there all the time, and messages go to them while he is being given it."""
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        alice, first = await world.login("alice"), await world.bind("bob", "first")
        await first.send(f"<presence><priority>{priority}</priority></presence>")
        other = await world.login("bob", "other")
        waiting = [f"message {number} {'x' * 3000}" for number in range(30)]
        stanzas = [CHAT.format(to=first.bare, body=body) for body in waiting]
        await world.plugin("offline").take(first.bare, [(stanza, None) for stanza in stanzas])
        first.stop_reading()
        world.app.server.messages_left(first.bare)
        await turns()
        alice.write(CHAT.format(to=first.bare, body="newer"))
        await turns()
        assert b"newer" not in other.raw
        first.transport.close()
        await world.settle()
        assert await bodies(other) == [*waiting, "newer"]


class Pushed:
    """A timer that never goes off."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


async def test_a_session_looks_again_for_what_is_left_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("offline",)) as world:
        bob = await world.login("bob", node=0)
        plugin, session = world.plugin("offline", 0), bob.session
        await plugin.take(bob.bare, [(CHAT.format(to=bob.bare, body="not for this one"), None)])

        async def left(_session: Session, _queue: Any, _going_on: Any, looking: Awaitable[Any] | None) -> Any:
            if looking is not None:  # it was begun
                await looking
            return type(plugin).flush.__globals__["Turn"].OTHERS

        monkeypatch.setattr(plugin, "_take_turn", left)
        made = []
        monkeypatch.setattr(plugin, "call_later", lambda *about: made.append(Pushed()) or made[-1])
        for _ in range(3):
            going_on = plugin.flush(session)
            if going_on is not None:
                await going_on
            await world.settle()
        assert [timer.is_cancelled for timer in made] == [True, True, False]
