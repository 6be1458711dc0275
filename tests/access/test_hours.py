"""Rows of a log by hours, of which very many may come: all are found, newest first, in pages of any size."""

import random
from datetime import UTC, datetime

import pytest

from xmppd.access import hours
from xmppd.access.audit import AUDIT_LOG, HOUR, hour_of, hours_of
from xmppd.access.hours import END, Hours, id_of
from xmppd.admin.commands import Caller
from xmppd.errors import StoreUnavailable
from xmppd.testing import START, World

pytestmark = pytest.mark.asyncio
BEGIN = START // HOUR * HOUR


async def written(nodes: list[Hours], moments: list[float], world: World) -> list[str]:
    """Write a row for each moment, by one node after the other; their ids."""
    ids = []
    for number, at in enumerate(moments):
        node = nodes[number % len(nodes)]
        row = {"hour": node.place(at), "id": id_of(at, f"{number:08x}"), "at": at, "command": "x"}
        await node.mark(row["hour"], 1000.0)
        await world.app.store.put(AUDIT_LOG, row, ttl=1000.0)
        ids.append(row["id"])
    return ids


async def read(log: Hours, hour: str, size: int) -> list[str]:
    found: list[str] = []
    before = ""
    while True:
        rows, before = await log.newest(hour, before, size)
        assert len(rows) <= size
        found += [row["id"] for row in rows]
        if not before:
            return found


async def test_all_are_found_in_pages_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "OWN", 5)
    chance = random.Random(7)
    async with World(nodes=1) as world:
        for number in range(6):
            begin = BEGIN + number * HOUR
            some = sorted(begin + chance.choice((600, 60, 3600)) * chance.random() for _ in range(60))
            edges = [begin, begin + 59.999999, begin + 60, begin + 3599.999999]
            nodes = [hours_of(world.app.store) for _ in range(3)]
            ids = await written(nodes, sorted([*some, *edges]), world)
            log = hours_of(world.app.store)
            for size in (1, 2, 3, 7, 63, 64, 65, 1000):
                assert await read(log, hour_of(begin), size) == sorted(ids, reverse=True), (number, size)


async def test_a_partition_has_so_many_of_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "OWN", 10)
    async with World(nodes=1) as world:
        nodes = [hours_of(world.app.store) for _ in range(2)]
        await written(nodes, [BEGIN + number * 0.9 for number in range(200)], world)
        page = await world.app.store.scan_all(AUDIT_LOG)
        counts: dict[str, int] = {}
        for row in page.rows:
            if not row["id"].endswith(END):
                counts[row["hour"]] = counts.get(row["hour"], 0) + 1
        minute = datetime.fromtimestamp(BEGIN + 120, UTC).strftime("%Y-%m-%dT%H:%M")
        assert counts.pop(hour_of(BEGIN)) == 20
        assert len(counts) == 3 and minute in counts and max(counts.values()) <= 67
        await written(nodes, [BEGIN + HOUR], world)
        assert len((await world.app.store.scan(AUDIT_LOG, (hour_of(BEGIN + HOUR),))).rows) == 1


async def test_what_is_done_very_often_stands_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "OWN", 3)
    async with World(nodes=1) as world:
        for number in range(12):
            await world.app.commands.call(
                "user enable", {"account": "alice@localhost"}, Caller("http", f"m{number}")
            )
            await world.advance(25)
        await world.settle()
        page = await world.app.commands.call("audit list", {})
        assert [row["who"] for row in page["rows"]] == [f"m{number}" for number in reversed(range(12))]
        assert {row["outcome"] for row in page["rows"]} == {"done"}


async def test_no_row_is_where_nobody_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "OWN", 0)
    async with World(nodes=1) as world:
        log, put = hours_of(world.app.store), world.app.store.put

        async def fail(*given: object, **more: object) -> None:
            raise StoreUnavailable("away")

        world.app.store.put = fail  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await log.mark(log.place(BEGIN), 60.0)
        world.app.store.put = put  # type: ignore[method-assign]
        await written([log], [BEGIN + 1], world)
        assert len(await read(log, hour_of(BEGIN), 10)) == 1, "it tried again"
