"""Commands reach the session on whatever node it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from xmppd.errors import CommandError
from xmppd.testing import World

pytestmark = pytest.mark.asyncio


@pytest.fixture(name="settings")
def shared_settings(redis_url: str) -> Mapping[str, Any]:
    return {"cache": {"redis": redis_url, "prefix": "test-commands"}}


async def call(world: World, name: str, at: int = 0, /, **arguments: Any) -> Any:
    """What a node answers its operator; the world goes on meanwhile."""
    return await world.apps[at].commands.call(name, arguments)


async def listed(world: World, at: int = 0, /, **arguments: Any) -> list[dict[str, Any]]:
    """The rows of the first page."""
    rows: list[dict[str, Any]] = (await call(world, "session list", at, **arguments))["rows"]
    return rows


async def test_sessions_are_listed_with_their_nodes(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        await world.login("alice", "near", node=0)
        await world.bind("alice", "far", node=1)
        await world.login("bob", "far", priority=5, node=1)
        rows = await listed(world)
        assert {(row["node"], row["session"], row["priority"]) for row in rows} == {
            ("node0:5270", "alice@localhost/near", 0),
            ("node1:5270", "alice@localhost/far", None),
            ("node1:5270", "bob@localhost/far", 5),
        }
        rows = await listed(world, account="bob@localhost")
        assert [(row["node"], row["session"]) for row in rows] == [("node1:5270", "bob@localhost/far")]
        found: list[tuple[str, str]] = []
        token: str | None = ""
        while token is not None:
            page = await call(world, "session list", most=1, after=token)
            found += [(row["node"], row["session"]) for row in page["rows"]]
            token = page["after"]
        assert found == [
            ("node0:5270", "alice@localhost/near"),
            ("node1:5270", "alice@localhost/far"),
            ("node1:5270", "bob@localhost/far"),
        ]
        with pytest.raises(CommandError, match="most must be"):
            await call(world, "session list", most=0)


async def test_one_node_names_none() -> None:
    async with World(nodes=1) as world:
        await world.login("alice", "here")
        [row] = await listed(world)
        assert row["session"] == "alice@localhost/here"
        assert "node" not in row
        assert await call(world, "session kick", address="alice@localhost") == [{"ended": row["session"]}]


async def test_a_session_is_ended_wherever_it_is(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        near = await world.login("alice", "near", node=0)
        far = await world.login("alice", "far", node=1)
        await near.receive_all()
        ended = await call(world, "session kick", address="alice@localhost/far")
        assert ended == [{"node": "node1:5270", "ended": far.jid}]
        await far.expect_closed("policy-violation")
        await near.expect(f"<presence from='{far.jid}' to='alice@localhost' type='unavailable'/>")
        with pytest.raises(CommandError, match="not logged in"):
            await call(world, "session kick", address="alice@localhost/far")
        assert [row["ended"] for row in await call(world, "session kick", 1, address="alice@localhost")] == [
            near.jid
        ]
        with pytest.raises(CommandError, match="not the address of an account"):
            await call(world, "session kick", address="localhost")


async def test_a_session_is_found_shown_and_spoken_to_wherever_it_is(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        near = await world.login("alice", "near", node=0)
        far = await world.login("alice", "far", priority=2, node=1)
        await world.settle()
        await near.receive_all()
        for node in (0, 1):
            rows = await listed(world, node, client="FA", state="available")
            assert [(row["node"], row["session"]) for row in rows] == [("node1:5270", far.jid)]
            rows = await listed(world, node, node="node0:5270")
            assert [(row["node"], row["session"]) for row in rows] == [("node0:5270", near.jid)]
            row = await call(world, "session show", node, address=far.jid)
            assert (row["node"], row["session"], row["priority"]) == ("node1:5270", far.jid, 2)

            rows = await call(world, "session message", node, address="alice@localhost", text="all")
            assert sorted((row["node"], row["sent"]) for row in rows) == [
                ("node0:5270", near.jid),
                ("node1:5270", far.jid),
            ]
            rows = await call(world, "session message", node, address="alice@localhost", text="1", chat=True)
            assert [(row["node"], row["sent"]) for row in rows] == [("node1:5270", far.jid)]
            rows = await call(world, "session message", node, address=near.jid, text="you")
            assert [(row["node"], row["sent"]) for row in rows] == [("node0:5270", near.jid)]
            await world.settle()
            body = "{jabber:client}body"
            assert [one.findtext(body) for one in await near.receive_all()] == ["all", "you"]
            assert [one.findtext(body) for one in await far.receive_all()] == ["all", "1"]
        with pytest.raises(CommandError, match="no node nowhere is connected"):
            await call(world, "session list", node="nowhere")


async def test_a_node_that_is_silent_may_have_what_is_not_found(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        far = await world.login("alice", "far", node=1)

        async def refuse(arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
            raise CommandError("not today")

        for name in ("session show", "session kick"):
            world.apps[1].everywhere.serve(name, refuse)
            with pytest.raises(CommandError, match="is not logged in; node1:5270: not today"):
                await call(world, name, address=far.jid)
        near = await world.login("alice", "near", node=0)
        assert await call(world, "session kick", address="alice@localhost") == [
            {"node": "node0:5270", "ended": near.jid},
            {"node": "node1:5270", "problem": "not today"},
        ]


async def test_an_answer_that_fits_no_frame_is_refused(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        far, everywhere = world.apps[1].everywhere, world.apps[0].everywhere
        size = 17 << 20

        async def talk(arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
            return [{"said": "x" * size}]

        far.serve("talk", talk)
        with pytest.raises(CommandError, match="an answer of 17825806 bytes is too long"):
            await everywhere.ask("node1:5270", "talk", {})
        with pytest.raises(CommandError, match="a question of 17825804 bytes is too long"):
            await everywhere.ask("node1:5270", "talk", {"said": "x" * size})
        size = 15 << 20
        [row] = await everywhere.ask("node1:5270", "talk", {})
        assert len(row["said"]) == size


async def test_a_disabled_account_ends_on_all_nodes(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        far = await world.login("alice", node=1)
        await call(world, "user disable", account="alice@localhost")
        await world.settle()
        await far.expect_closed("not-authorized")


async def test_who_does_not_answer_is_named(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        await world.login("alice", node=0)
        far = world.apps[1].everywhere

        async def refuse(arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
            raise CommandError("not today")

        far.serve("session page", refuse)
        rows = await listed(world)
        assert rows[0]["node"] == "node0:5270"
        assert rows[1] == {"node": "node1:5270", "problem": "not today"}
        world.cut(0, 1)
        await world.advance(6)
        assert [row["node"] for row in await listed(world)] == ["node0:5270"]
