"""Levels of the log by module: they hold for their minutes, on the nodes that were meant, and then end."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from xmppd import loglevels
from xmppd.admin.commands import Caller
from xmppd.errors import CommandError
from xmppd.testing import World

pytestmark = pytest.mark.asyncio
ROUTER = logging.getLogger("xmppd.core.router")


async def call(world: World, name: str, /, **arguments: Any) -> Any:
    return await world.app.commands.call(name, arguments, Caller("socket", "kim"))


async def test_it_ends_by_itself() -> None:
    async with World(nodes=1) as world:
        [row] = await call(world, "log level", module="core.router", level="debug", minutes=2)
        assert (row["module"], row["level"]) == ("xmppd.core.router", "debug")
        assert ROUTER.level == logging.DEBUG
        assert await call(world, "log levels") == [row]
        await world.advance(119)
        assert ROUTER.level == logging.DEBUG
        await world.advance(2)
        assert ROUTER.level == logging.NOTSET and await call(world, "log levels") == []
        rows = (await call(world, "audit list", command="log"))["rows"]
        assert [(it["command"], it["who"], it["outcome"]) for it in rows] == [("log level", "kim", "done")]


async def test_one_that_is_set_again_counts_from_then() -> None:
    async with World(nodes=1) as world:
        await call(world, "log level", module="core.router", level="debug", minutes=1)
        await world.advance(30)
        await call(world, "log level", module="core.router", level="error", minutes=1)
        await world.advance(45)
        assert ROUTER.level == logging.ERROR
        assert await call(world, "log reset", module="core.router") == [{"ended": "xmppd.core.router"}]
        assert await call(world, "log reset") == [] and ROUTER.level == logging.NOTSET


async def test_a_package_stands_for_what_is_in_it_and_nothing_is_left_when_the_server_ends() -> None:
    async with World(nodes=1) as world:
        await call(world, "log level", module="core", level="debug")
        assert ROUTER.isEnabledFor(logging.DEBUG)
    assert not ROUTER.isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize(
    ("module", "level", "minutes", "why"),
    [
        ("core.route", "debug", 1, "did you mean core.router"),
        ("aiohttp", "debug", 1, "no module 'aiohttp'"),
        ("", "debug", 1, "no module"),
        ("core.router", "loud", 1, "level must be"),
        ("core.router", "debug", 0, "minutes must be"),
        ("core.router", "debug", 1441, "minutes must be"),
    ],
)
async def test_what_is_wrong_is_said(module: str, level: str, minutes: int, why: str) -> None:
    async with World(nodes=1) as world:
        with pytest.raises(CommandError, match=why):
            await call(world, "log level", module=module, level=level, minutes=minutes)


async def test_there_are_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loglevels, "MOST", 1)
    async with World(nodes=1) as world:
        await call(world, "log level", module="core.router", level="debug")
        await call(world, "log level", module="core.router", level="info")
        with pytest.raises(CommandError, match="already"):
            await call(world, "log level", module="core.output", level="debug")


async def test_on_all_nodes_or_one(redis_url: str) -> None:
    settings: Mapping[str, Any] = {"cache": {"redis": redis_url, "prefix": "test-levels"}}
    async with World(settings=settings, nodes=2) as world:
        rows = await call(world, "log level", module="core.router", level="debug")
        assert sorted(row["node"] for row in rows) == ["node0:5270", "node1:5270"]
        rows = await call(world, "log level", module="core.output", level="debug", node="node1:5270")
        assert [row["node"] for row in rows] == ["node1:5270"]
        found = [(row["node"], row["module"]) for row in await call(world, "log levels")]
        assert ("node1:5270", "xmppd.core.output") in found and len(found) == 3
        with pytest.raises(CommandError, match="no node"):
            await call(world, "log level", module="core.output", level="debug", node="nowhere")
        assert len(await call(world, "log reset")) == 3
