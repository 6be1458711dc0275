"""Where the messages that wait for an account begin to be read."""

from __future__ import annotations

from typing import Any

import pytest
from several import several

from plugins.offline.floors import Floors
from tests.plugins.test_offline import become_available, bodies, chat
from xmppd.core.ids import LOOK_SECONDS, SETTLED_SECONDS
from xmppd.testing import World

BOB = "bob@localhost"
LONG = SETTLED_SECONDS + 2 * LOOK_SECONDS + 1


def test_a_floor_only_rises_unless_it_is_lowered() -> None:
    floors = Floors()
    assert floors.of(BOB) is None
    floors.found(BOB, "5", floors.changes)
    floors.found(BOB, "3", floors.changes)
    assert floors.of(BOB) == ("5",)
    floors.lower(BOB, "7")
    assert floors.of(BOB) == ("5",)
    floors.lower(BOB, "4")
    assert floors.of(BOB) == ("4",)
    floors.lower(BOB, "")
    assert floors.of(BOB) is None


def test_what_was_read_while_it_was_lowered_raises_nothing() -> None:
    floors = Floors()
    changes = floors.changes
    floors.lower(BOB, "2")
    floors.found(BOB, "5", changes)
    assert floors.of(BOB) is None
    changes = floors.changes
    floors.clear()
    floors.found(BOB, "5", changes)
    assert floors.of(BOB) is None


def starts(w: World, monkeypatch: pytest.MonkeyPatch, node: int = 0) -> list[Any]:
    """From where on a node reads what waits."""
    table, found = w.plugin("offline", node).queue, list[Any]()
    scan = table.scan

    def seen(*partition: Any, start: Any = None, **more: Any) -> Any:
        found.append(start)
        return scan(*partition, start=start, **more)

    monkeypatch.setattr(table, "scan", seen)
    return found


@pytest.mark.asyncio
@pytest.mark.one_node("counts what one reads")
async def test_what_was_deleted_is_not_read_over_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("offline",), nodes=1) as w:
        alice = await w.login("alice")
        for _ in range(2):
            await chat(alice, BOB, "1")
            await w.advance(1)
            bob = await w.bind("bob")
            read = starts(w, monkeypatch)
            await become_available(bob)
            assert await bodies(bob) == ["1"]
            await bob.drop()
            await w.settle()
        assert read and all(start is not None for start in read)
        before = f"{w.plugin('offline').server.ids.time.read() - 3_000_000:016x}"
        assert all(start[0] > before for start in read)


@pytest.mark.asyncio
@pytest.mark.one_node("has two nodes of its own")
async def test_a_floor_is_below_what_another_node_may_be_writing(redis_url: str) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as w:
        offline, ids = w.plugin("offline", 0), w.app.server.ids
        await offline.oldest(BOB, 1)
        assert offline.floors.of(BOB) == (f"{0:016x}",), "nothing is settled"
        await w.advance(LONG)
        await offline.oldest(BOB, 1)
        (floor,) = offline.floors.of(BOB)
        assert int(floor, 16) <= ids.time.read() - SETTLED_SECONDS * 1_000_000


@pytest.mark.asyncio
@pytest.mark.one_node("has two nodes of its own")
async def test_a_row_of_before_is_told_to_all_nodes(redis_url: str) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as w:
        here, there = w.plugin("offline", 0), w.plugin("offline", 1)
        for floors in (here.floors, there.floors):
            floors.found(BOB, "ff", floors.changes)
        here.lower(BOB, "0001")
        await w.settle()
        assert here.floors.of(BOB) == there.floors.of(BOB) == ("0001",)


@pytest.mark.asyncio
@pytest.mark.one_node("has two nodes of its own")
@pytest.mark.parametrize("count", [1, 1001])
async def test_nodes_that_meet_again_are_told(redis_url: str, count: int) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as w:
        here, there = w.plugin("offline", 0), w.plugin("offline", 1)
        there.floors.found(BOB, "ff", there.floors.changes)
        there.floors.found("carol@localhost", "ff", there.floors.changes)
        w.cut(0, 1)
        for node in (0, 1):
            mesh = w.cluster(node).mesh
            mesh.give_up(next(iter(mesh.members.values())), "it is cut off")
        for number in range(count):
            here.lower(f"user{number}@localhost" if number else BOB, "0001")
        await w.settle()
        assert there.floors.of(BOB) == ("ff",)
        w.connect_nodes(0, 1, trunk=2)
        await w.settle()
        assert there.floors.of(BOB) == (("0001",) if count == 1 else None)
        assert there.floors.of("carol@localhost") == (("ff",) if count == 1 else None)


@pytest.mark.asyncio
@pytest.mark.one_node("has two nodes of its own")
async def test_what_is_young_is_told_to_nobody(redis_url: str) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as w:
        here, there = w.plugin("offline", 0), w.plugin("offline", 1)
        there.floors.found(BOB, "ff" * 8, there.floors.changes)
        here.lower(BOB, f"{here.server.ids.time.read() - 30_000_000:016x}")
        await w.settle()
        assert there.floors.of(BOB) == ("ff" * 8,)


@pytest.mark.asyncio
async def test_what_is_taken_over_from_before_is_given() -> None:
    async with World(plugins=("offline",)) as w:
        alice = await w.login("alice")
        await chat(alice, BOB, "1")
        bob = await w.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["1"]
        await bob.drop()
        await w.advance(LONG)
        for offline in w.plugins("offline"):
            await offline.oldest(BOB, 1)
        old = "<message xmlns='jabber:client' from='alice@localhost'><body>old</body></message>"
        await w.plugin("offline").take(BOB, [(old, 1.0)])
        await w.settle()
        bob = await w.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["old"]
