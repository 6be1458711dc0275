"""Clients of a killed process that come without the id of their session to a node that does not know of the
loss, or not yet: what they send again is in the archives once.
"""

from __future__ import annotations

import pytest
from archives import chat, find, world
from killing import anew, given, texts
from managing import managed
from several import several

from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio


def give_up(w: World, node: int, *others: int) -> None:
    """A node is gone without a word, and those others know."""
    for other in others:
        mesh = w.cluster(other).mesh
        mesh.give_up(mesh.members[w.cluster(node).mesh.name], "it was killed")


async def said_by_who_is_killed(w: World) -> None:
    """Alice has sent two messages that are archived, and not acknowledged to her, when node 0 is killed. What
    time it was by its clock when the second one was written no other node has heard.
    """
    alice, _ = await managed(w, "alice", "r", node=0)
    await chat(alice, "carol@localhost", "1", "2")
    await w.settle()
    for other in range(1, len(w.apps)):
        w.cut(0, other)


async def are_there_once(w: World, alice: Client, *again: str) -> None:
    """Sent again by her, in whoever's archive."""
    await chat(alice, "carol@localhost", *(again or ("1", "2")), "3")
    await w.settle()
    assert (await find(alice)).texts == ["1", "2", "3"]
    carol = await w.login("carol", node=1)
    assert (await find(carol)).texts == ["1", "2", "3"]


async def test_a_node_that_comes_after_the_loss_is_told(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        await said_by_who_is_killed(w)
        give_up(w, 0, 1, 2)
        await w.settle()
        await w.apps[2].loader.reload("archive", w.config)  # as if it had not been there
        await w.settle()
        await are_there_once(w, await anew(w, "alice", "r2", node=2))


async def test_a_node_that_nobody_tells_suspects_whom_it_has_not_met(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        await said_by_who_is_killed(w)
        give_up(w, 0, 1)
        await w.settle()
        await w.apps[1].loader.reload("archive", w.config)
        assert w.plugin("archive", 1)._dead == {}, "it may be about to be met"
        await are_there_once(w, await anew(w, "alice", "r2", node=1))


async def test_who_is_not_connected_may_be_lost(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        await said_by_who_is_killed(w)
        alice = await anew(w, "alice", "r2", node=1)
        await chat(alice, "carol@localhost", "1")
        await w.settle()
        give_up(w, 0, 1)
        await w.settle()
        await are_there_once(w, alice, "2")


async def test_who_is_silent_may_be_lost(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        assert w.app.server.hears_all_nodes()
        alice, _ = await managed(w, "alice", "r", node=0)
        await chat(alice, "carol@localhost", "1", "2")
        await w.settle()
        w._trunks[0, 1].write = lambda frames: None
        await w.advance(2.0)
        assert not w.apps[1].server.hears_all_nodes() and w.app.server.hears_all_nodes()
        alice = await anew(w, "alice", "r2", node=1)
        await chat(alice, "carol@localhost", "1")
        await w.settle()
        w.cut(0, 1)
        give_up(w, 0, 1)
        await w.settle()
        await are_there_once(w, alice, "2")


async def test_what_was_missed_comes_as_soon_as_a_new_node_is_told(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        await managed(w, "alice", "r", node=0)
        await chat(await w.login("bob", node=0), "alice@localhost", "1")
        await w.settle()
        for other in (1, 2):
            w.cut(0, other)
        give_up(w, 0, 1, 2)
        await w.settle()
        await w.apps[2].loader.reload("archive", w.config)
        await w.settle()
        alice = await anew(w, "alice", "r2", node=2)
        await chat(await w.login("bob", node=1), "alice@localhost", "2")
        assert texts(await given(alice)) == ["1", "2"]


async def test_a_loss_is_told_to_who_came_just_before(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        await said_by_who_is_killed(w)
        give_up(w, 0, 2)
        await w.apps[2].loader.reload("archive", w.config)  # it asks who is there
        await w.settle()
        assert w.plugin("archive", 2)._dead == {}
        give_up(w, 0, 1)
        await w.settle()
        assert [*w.plugin("archive", 2)._dead] == [w.app.server.process]


async def test_who_is_there_is_no_suspect(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        for node in range(3):
            archive = w.plugin("archive", node)
            assert not archive.may_have_lost_some()
            await w.apps[node].loader.reload("archive", w.config)
            await w.settle()
            archive = w.plugin("archive", node)
            assert not archive.may_have_lost_some()
            assert [*archive._there] == [other.server.node for other in w.apps if other is not w.apps[node]]
            await anew(w, "alice", f"r{node}", node=node)
            assert archive._doubts == {}
