"""Sessions that a node which stops has left to another one, and that one is killed."""

from __future__ import annotations

import pytest
from archives import chat, world
from killing import anew, given, texts
from managing import ask_to_resume, enable, managed, ready, resume
from several import several

from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio


async def left_to(w: World) -> tuple[Client, str, int]:
    """Bob was on node 0, which stops while he is away; the id of his session, and who keeps it."""
    bob, id = await managed(w, "bob", "r", node=0)
    await chat(await w.login("alice", node=0), "bob@localhost", "1", "2")
    assert texts(await bob.receive_all()) == ["1", "2"]
    await bob.drop()
    await w.drain(0)
    [keeper] = [node for node in (1, 2) if w.apps[node].handover.keeps(id)]
    return bob, id, keeper


async def kill(w: World, node: int) -> int:
    """The one that is there still."""
    [other] = {1, 2} - {node}
    w.cut(node, other)
    mesh = w.cluster(other).mesh
    mesh.give_up(mesh.members[w.cluster(node).mesh.name], "it was killed")
    await w.settle()
    return other


@pytest.mark.parametrize("has_id", [True, False])
@pytest.mark.parametrize("seconds", [0, 60])
async def test_what_was_not_acknowledged_is_not_lost(redis_url: str, has_id: bool, seconds: int) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        _, id, keeper = await left_to(w)
        await w.advance(seconds)
        node = await kill(w, keeper)
        if has_id:
            again = await ready(w, "bob", node=node)
            await ask_to_resume(again, id)
            await again.bind("r2")
            await enable(again)
        else:
            again = await anew(w, "bob", "r2", node=node)
        assert texts(await given(again)) == ["1", "2"]


async def test_its_row_goes_with_it_when_its_time_is_over(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        _, id, keeper = await left_to(w)
        behind = w.plugin("archive", keeper).behind
        assert [row["session"] for row in (await behind.scan("bob@localhost")).rows] == [id]
        await w.advance(300)
        assert not w.apps[keeper].handover.keeps(id)
        await w.advance(30)
        assert (await behind.scan("bob@localhost")).rows == [] and w.plugin(
            "archive", keeper
        ).progress.left == {}
        assert texts(await given(await anew(w, "bob", "r2", node=3 - keeper))) == ["1", "2"]


@pytest.mark.parametrize("is_here", [True, False])
async def test_its_row_is_that_of_who_resumes_it(redis_url: str, is_here: bool) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        old, id, keeper = await left_to(w)
        node = keeper if is_here else 3 - keeper
        bob = await resume(w, old, id, node=node)
        await w.advance(60)
        assert texts(await bob.receive_all()) == ["1", "2"]
        archive = w.plugin("archive", keeper)
        [row] = (await archive.behind.scan("bob@localhost")).rows
        assert row["session"] == id and row["process"] == w.apps[node].server.process
        assert archive.progress.left == {}
        other = await kill(w, node)
        again = await ready(w, "bob", node=other)
        await ask_to_resume(again, id)
        await again.bind("r2")
        await enable(again)
        assert texts(await given(again)) == ["1", "2"]


async def test_who_has_acknowledged_all_has_no_row(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        bob, id = await managed(w, "bob", "r", node=0)
        await bob.drop()
        await w.drain(0)
        [keeper] = [node for node in (1, 2) if w.apps[node].handover.keeps(id)]
        assert (await w.plugin("archive", keeper).behind.scan("bob@localhost")).rows == []
