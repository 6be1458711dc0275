"""What is about the whole service is the same whichever node it is asked of."""

from __future__ import annotations

import pytest
from several import several

from xmppd.testing import World

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("each_carrier")]


@pytest.mark.parametrize("words", ["<status>bye</status>", ""])
async def test_the_last_words_that_count_are_the_last_on_any_node(redis_url: str, words: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=0)
        await world.befriend(alice, bob)
        await bob.send("<presence type='unavailable'><status>see you</status></presence>")
        away = await world.login("bob", node=1)
        await away.send(f"<presence type='unavailable'>{words}</presence>")
        await alice.send("<presence type='unavailable'/>")
        await alice.receive_all()
        await alice.send("<presence/>")
        shown = [tree for tree in await alice.receive_all() if tree.get("from", "").startswith("bob@")]
        said = [tree.findtext("{jabber:client}status") for tree in shown]
        assert said == (["bye"] if words else [])


async def test_a_message_of_the_day_is_one_for_all_nodes(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2, plugins=("announce",)) as world:
        clients = [
            await world.login(user, node=node) for user, node in (("alice", 0), ("bob", 1), ("bob", 0))
        ]
        for client in clients:
            await client.receive_all()
        await world.app.commands.call("announce motd", {"text": "tea"})
        said = [tree.findtext("{jabber:client}body") for c in clients for tree in await c.receive_all()]
        assert said == ["tea", "tea"], "once to each account"
        assert await world.apps[1].commands.call("announce clear", {}) == {"removed": True}
        carol = await world.login("carol", node=0)
        await carol.expect_nothing()


async def test_an_announcement_reaches_each_session_once(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2, plugins=("announce",)) as world:
        clients = [
            await world.login(user, node=node) for user, node in (("alice", 0), ("bob", 1), ("bob", 0))
        ]
        for client in clients:
            await client.receive_all()
        assert await world.app.commands.call("announce send", {"text": "tea"}) == {"sent": 3}
        for client in clients:
            assert [tree.findtext("{jabber:client}body") for tree in await client.receive_all()] == ["tea"]
