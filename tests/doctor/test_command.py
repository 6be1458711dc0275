"""`doctor` in a server, on several nodes, and against engines that are there."""

import pytest

from xmppd.errors import CommandError
from xmppd.testing import World

TOPICS = ["certificates", "clocks", "machine", "settings"]


async def examined(world, **arguments):
    return await world.app.commands.call("doctor", arguments)


@pytest.mark.asyncio
async def test_the_worst_comes_first() -> None:
    async with World(settings={"log": {"level": "debug"}}) as world:
        rows = await examined(world, topic=TOPICS)
        order = ["error", "warning", "note", "ok"]
        assert [row["level"] for row in rows] == sorted((row["level"] for row in rows), key=order.index)
        assert {"level": "note", "about": "log.level"}.items() <= next(
            row for row in rows if row["about"] == "log.level"
        ).items()
        assert all(set(row) == {"level", "about", "found", "advice"} for row in rows)


@pytest.mark.asyncio
async def test_only_what_is_wrong_or_only_a_topic() -> None:
    async with World() as world:
        rows = await examined(world, topic=["settings", "certificates"], wrong=True)
        assert [row["about"] for row in rows] == ["certificates"]
        # a world is a server without a port
        [name] = await examined(world, topic=["names"])
        assert name["about"] == "DNS of localhost"


@pytest.mark.asyncio
async def test_the_store_is_asked_and_so_is_the_cache() -> None:
    async with World() as world:
        rows = await examined(world, topic=["clocks"])
        engines = {row["about"].partition(" ")[0] for row in rows}
        is_shared = world.app.cache is not None
        assert engines == ({"Cassandra", "Redis"} if is_shared else {"SQLite"})
        assert all(row["level"] in ("ok", "warning") for row in rows)
        if is_shared:
            assert all("clocks agree to 0." in row["found"] for row in rows if row["level"] == "ok")


@pytest.mark.asyncio
async def test_each_node_says_how_it_is() -> None:
    async with World(nodes=2) as world:
        rows = await examined(world, topic=["machine"], all=True)
        assert {row["node"] for row in rows} == {"node0:5270", "node1:5270"}
        alone = await examined(world, topic=["machine"])
        assert all("node" not in row for row in alone)


@pytest.mark.asyncio
@pytest.mark.parametrize("arguments", [{"topic": ["weather"]}, {"resolver": "[::1"}])
async def test_what_cannot_be_asked_is_refused(arguments) -> None:
    async with World() as world:
        with pytest.raises(CommandError) as refused:
            await examined(world, **arguments)
        assert refused.value.exit_code == 2


@pytest.mark.asyncio
async def test_a_resolver_by_name_is_refused() -> None:
    async with World() as world:
        with pytest.raises(CommandError, match="resolver must be an IP address"):
            await examined(world, topic=["names"], resolver="dns.example.org")
