"""Events as they happen, for who follows them."""

from collections.abc import Mapping
from typing import Any

import pytest
from followed import taken

from xmppd.admin.commands import Caller
from xmppd.errors import CommandError
from xmppd.testing import World
from xmppd.watching import MOST

pytestmark = pytest.mark.asyncio


async def test_what_happens_is_told_to_who_watches_it() -> None:
    async with World(nodes=1) as world:
        follow = world.app.commands.follow
        every, sessions = (
            await follow("event watch", {}),
            await follow("event watch", {"kind": ["session.*"]}),
        )
        bobs = await follow(
            "event watch", {"account": "bob@localhost", "kind": ["session.*", "presence.changed"]}
        )
        begun = (await taken(world, sessions))[0]
        assert begun == {"what": "begun", "kinds": ["session.ended", "session.started"]}
        alice, bob = await world.login("alice", "a"), await world.login("bob", "b")
        await alice.send(f"<message to='{bob.bare}' type='chat'><body>secret</body></message>")
        await world.app.accounts.create("zoe@localhost", "geheim")
        await bob.drop()
        told = await taken(world, sessions)
        assert [(it["what"], it["account"]) for it in told] == [
            ("session.started", "alice@localhost"),
            ("session.started", "bob@localhost"),
            ("session.ended", "bob@localhost"),
        ]
        assert told[0]["data"]["resource"] == "a" and told[0]["at"].endswith("Z")
        assert {it["account"] for it in (await taken(world, bobs))[1:]} == {"bob@localhost"}
        found = await taken(world, every)
        assert {"account.created", "session.started", "presence.changed"} <= {it["what"] for it in found}
        assert "secret" not in str(found) and "message.sent" not in {it["what"] for it in found}
        for followed in (every, sessions, bobs):
            await followed.close()
        assert world.app.events.own == {} and world.app.events.wanted == []


async def test_what_people_write_is_told_to_who_names_it() -> None:
    async with World(nodes=1) as world:
        named = next(kind for kind in world.app.events.kinds if kind.startswith("message."))
        followed = await world.app.commands.follow("event watch", {"kind": [named]})
        alice = await world.login("alice", "a")
        await alice.send("<message to='bob@localhost' type='chat' id='m1'><body>hi</body></message>")
        await world.settle()
        assert [it["what"] for it in await taken(world, followed)] == ["begun", named]
        await followed.close()


async def test_what_is_wrong_is_said() -> None:
    async with World(nodes=1) as world:
        with pytest.raises(CommandError, match=r"there is no event session\.begun: there are"):
            await world.app.commands.follow("event watch", {"kind": ["session.begun"]})
        opened = [
            world.app.following.open("event watch", {"kinds": ["*"], "account": ""}) for _ in range(MOST)
        ]
        with pytest.raises(CommandError, match="16 callers follow events already"):
            await world.app.commands.follow("event watch", {})
        for feed in opened:
            feed.close()
        caller = Caller("http", "reader", "", frozenset(("event:watch",)))
        await (await world.app.commands.follow("event watch", {}, caller)).close()
        await world.settle()
        [row] = (await world.app.commands.call("audit list", {}))["rows"]
        assert (row["command"], row["who"], row["outcome"]) == ("event watch", "reader", "done")


async def test_events_of_all_nodes_are_told(redis_url: str) -> None:
    settings: Mapping[str, Any] = {"cache": {"redis": redis_url, "prefix": "test-watch"}}
    async with World(settings=settings, nodes=2) as world:
        followed = await world.apps[0].commands.follow("event watch", {"kind": ["session.started"]})
        await world.settle()
        await world.login("alice", "a", node=0)
        await world.login("bob", "b", node=1)
        found = [it for it in await taken(world, followed) if it["what"] == "session.started"]
        assert {(it["node"], it["account"]) for it in found} == {
            ("node0:5270", "alice@localhost"),
            ("node1:5270", "bob@localhost"),
        }
        await followed.close()
        await world.advance(12)
        assert [app.events.own for app in world.apps] == [{}, {}]
