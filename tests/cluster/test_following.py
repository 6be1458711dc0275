"""What is followed comes from all nodes through one connection, and goes on when one of them is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from followed import taken

from xmppd.testing import World

pytestmark = pytest.mark.asyncio
ALICE = "alice@localhost"


@pytest.fixture(name="settings")
def shared_settings(redis_url: str) -> Mapping[str, Any]:
    return {"cache": {"redis": redis_url, "prefix": "test-following"}}


async def test_both_nodes_tell(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        alice, bob = await world.login("alice", "a", node=1), await world.login("bob", "b", node=0)
        followed = await world.apps[0].commands.follow("trace", {"account": ALICE})
        [session] = [it for it in await taken(world, followed) if it["what"] == "session"]
        assert (session["node"], session["session"]) == ("node1:5270", alice.jid)
        await bob.send(f"<message to='{ALICE}' type='chat' id='m1'><body>x</body></message>")
        await world.settle()
        records = await taken(world, followed)
        [out] = [it for it in records if it["what"] == "out"]
        assert out["node"] == "node1:5270" and "id='m1'" in out["xml"]
        decisions = [(it["node"], it["decision"], it["nodes"]) for it in records if it["what"] == "decision"]
        assert ("node0:5270", "under-way", ["node1:5270"]) in decisions
        later = await world.login("alice", "late", node=0)
        records = await taken(world, followed)
        assert {it["node"] for it in records if it.get("session") == later.jid} == {"node0:5270"}
        await followed.close()
        await alice.send("<presence/>")
        await world.advance(12)
        assert [app.router.watches_next for app in world.apps] == [False, False]


async def test_a_node_that_is_lost_is_noted_and_the_others_go_on(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        near, far = await world.login("alice", "near", node=0), await world.login("alice", "far", node=1)
        followed = await world.apps[0].commands.follow("trace", {"account": ALICE})
        await taken(world, followed)
        world.cut(0, 1)
        await world.advance(60)
        notes = [(it["node"], it["note"]) for it in await taken(world, followed) if it["what"] == "note"]
        assert notes == [("node1:5270", "the node is lost")]
        assert not world.apps[1].router.watches_next, "nobody is there to be told"
        await near.send("<presence/>")
        assert (await taken(world, followed))[0]["what"] == "in"
        world.connect_nodes(0, 1, trunk=2)
        await world.advance(3)
        await far.receive_all()
        records = await taken(world, followed)
        assert {it["node"] for it in records if it["what"] == "session"} == {"node1:5270"}
        await followed.close()


async def test_what_is_not_taken_is_dropped_and_counted(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        alice = await world.login("alice", "a", node=1)
        followed = await world.apps[0].commands.follow("trace", {"account": ALICE})
        await taken(world, followed)
        for number in range(1500):
            alice.write(f"<iq type='get' id='{number}'><ping xmlns='urn:xmpp:ping'/></iq>")
        await world.settle()
        await world.advance(60)
        records = await taken(world, followed)
        counted = sum(it["count"] for it in records if it["what"] == "dropped")
        told = sum(it["what"] in ("in", "routed", "out") for it in records)
        assert counted and told == 1000
        await followed.close()
