"""How nodes are doing: what a snapshot says, what it costs nobody when nobody looks, how people see it."""

import io
from collections.abc import Mapping
from typing import Any

import pytest
from followed import taken

from xmppd.admin.topview import View, show
from xmppd.errors import CommandError
from xmppd.testing import World

pytestmark = pytest.mark.asyncio


async def test_snapshots_come_at_their_pace() -> None:
    async with World(nodes=1) as world:
        alice, _ = await world.login("alice"), await world.login("bob")
        followed = await world.app.commands.follow("top", {"seconds": 1})
        [first] = await taken(world, followed)
        assert (first["sessions"], first["accounts"], first["connections"]) == (2, 2, 2)
        assert first["cpu"] is None and first["memory_mib"] > 10
        assert first["stanzas_per_second"] == {"message": None, "presence": None, "iq": None}
        for _ in range(16):
            await alice.send("<message to='bob@localhost' type='chat'><body>x</body></message>")
        await world.advance(1.5)
        [second] = await taken(world, followed)
        assert second["stanzas_per_second"]["message"] > 0 and second["cpu"] is not None
        assert [it["account"] for it in second["busiest"]] == ["alice@localhost"]
        assert world.app.router.watches_next
        await followed.close()
        assert not world.app.router.watches_next
        await world.advance(5)
        assert await taken(world, followed) == []


async def test_two_look_and_a_trace_goes_on() -> None:
    async with World(nodes=1) as world:
        alice = await world.login("alice")
        commands = world.app.commands
        one, other = await commands.follow("top", {}), await commands.follow("top", {"most": 0})
        trace = await commands.follow("trace", {"account": alice.bare})
        await one.close()
        await alice.send("<presence/>")
        await world.advance(3)
        assert len(await taken(world, other)) == 2
        assert "in" in {it["what"] for it in await taken(world, trace)}
        await other.close()
        await alice.send("<presence/>")
        assert "in" in {it["what"] for it in await taken(world, trace)}
        await trace.close()
        assert not world.app.router.watches_next


@pytest.mark.parametrize("arguments", [{"seconds": 0.1}, {"seconds": 61}, {"most": -1}, {"most": 51}])
async def test_what_is_wrong_is_said(arguments: dict[str, Any]) -> None:
    async with World(nodes=1) as world:
        with pytest.raises(CommandError, match="must be"):
            await world.app.commands.follow("top", arguments)


async def test_each_node_has_its_own(redis_url: str) -> None:
    settings: Mapping[str, Any] = {"cache": {"redis": redis_url, "prefix": "test-top"}}
    async with World(settings=settings, nodes=2) as world:
        await world.login("alice", node=1)
        followed = await world.apps[0].commands.follow("top", {"seconds": 1})
        await world.advance(3)
        found = {it["node"]: it["sessions"] for it in await taken(world, followed)}
        assert found == {"node0:5270": 0, "node1:5270": 1}
        await followed.close()
        await world.advance(12)
        assert [app.router.watches_next for app in world.apps] == [False, False]


SNAPSHOT = {
    "at": "2026-11-29T20:00:00.000Z",
    "what": "top",
    "node": "n1",
    "sessions": 1200,
    "accounts": 3,
    "connections": 4,
    "stanzas_per_second": {"message": 1.5, "presence": 0.0, "iq": None},
    "cpu": 0.42,
    "lag_ms": 1.2,
    "memory_mib": 88,
    "busiest": [{"account": "[red]a[/red]@x", "per_second": 5.0}],
}


async def test_people_see_tables() -> None:
    out = io.StringIO()
    other = {**SNAPSHOT, "node": "n2", "busiest": [{"account": "b@x", "per_second": 9.0}]}
    show([SNAPSHOT, other, {"what": "note", "node": "n1", "note": "the node is lost"}], out)
    last = out.getvalue().split("\n\n\n")[-1]
    assert "n2" in last and "1,200" in last and "42%" in last and "1.2 ms" in last
    assert last.index("b@x") > 0 and "note=the node is lost" in last and "[red]" not in last


async def test_on_a_terminal_it_stays_in_one_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    show([SNAPSHOT, SNAPSHOT], out)
    assert "\x1b[" in out.getvalue() and "[red]a[/red]@x" in out.getvalue()


async def test_the_busiest_of_all_nodes_are_first() -> None:
    view = View()
    for node, speed in ("n1", 1.0), ("n2", 3.0):
        view.add({**SNAPSHOT, "node": node, "busiest": [{"account": f"{node}@x", "per_second": speed}]})
    assert [row["account"] for row in view.busiest()] == ["n2@x", "n1@x"]
