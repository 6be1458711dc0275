"""What may have been missed on a killed node is given again once, and nothing else is: not what was on other
nodes, came later, or was acknowledged by who came with the id of his session.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from archives import chat, world
from killing import acknowledge, anew, given, texts
from managing import ask_to_resume, enable, managed, ready
from several import several

from plugins.archive.losses import Loss, number_of
from plugins.archive.missed import NOTHING
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio


async def kill(w: World, node: int) -> None:
    """A node is gone without a word, and all others know."""
    archive = w.plugin("archive", node)
    await archive.progress.lock.acquire()  # it writes down nothing more
    archive._find_dead = nothing
    await cut_off(w, node)


async def nothing(*about: Any) -> None:
    """What a killed process does."""


async def cut_off(w: World, node: int) -> None:
    """A node is given up by all others."""
    gone = w.cluster(node).mesh.name
    for other in range(len(w.apps)):
        mesh = w.cluster(other).mesh
        if other != node and gone in mesh.members:
            w.cut(node, other)
            mesh.give_up(mesh.members[gone], "it was killed")
    await w.settle()
    await w.advance(1)


async def come(w: World, user: str, id: str, resource: str, *, node: int) -> tuple[Client, str]:
    """A client that comes back with the id of a session that is not to be had, and the id of its next one."""
    client = await ready(w, user, node=node)
    await ask_to_resume(client, id)
    await client.bind(resource)
    return client, await enable(client)


async def test_nothing_of_a_node_on_which_its_account_was_not(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        bob, _ = await managed(w, "bob", "desk", node=0)
        await w.advance(20)  # else it may have come behind the loss, and is asked itself
        await chat(await w.login("alice", node=2), "bob@localhost", "1", "2")
        await bob.receive_all()
        await acknowledge(bob)
        await kill(w, 1)
        assert texts(await given(await anew(w, "bob", "phone", node=2))) == []


@pytest.mark.parametrize("is_reloaded", [False, True])
async def test_a_node_that_begins_later_knows_it_by_what_another_one_wrote(
    redis_url: str, is_reloaded: bool
) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        desk, _ = await managed(w, "bob", "desk", node=0)
        carol, _ = await managed(w, "carol", "r", node=1)
        alice = await w.login("alice", node=2)
        await w.advance(20)
        for receiver in (desk, carol):
            await chat(alice, receiver.jid.partition("/")[0], "1", "2")
            await receiver.receive_all()
        await acknowledge(desk)
        await kill(w, 1)
        if is_reloaded:
            await w.apps[2].loader.reload("archive", w.config)
        assert texts(await given(await anew(w, "bob", "phone", node=2))) == []
        assert texts(await given(await anew(w, "carol", "r2", node=2))) == ["1", "2"]


async def test_nothing_that_came_when_the_node_was_gone(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        await managed(w, "bob", "phone", node=0)
        desk, _ = await managed(w, "bob", "desk", node=1)
        alice = await w.login("alice", node=2)
        await w.advance(20)
        await chat(alice, "bob@localhost", "1")
        await w.settle()
        await kill(w, 0)
        await w.advance(5)
        await chat(alice, "bob@localhost", "2", "3")
        await desk.receive_all()
        await acknowledge(desk)
        assert texts(await given(await anew(w, "bob", "phone", node=2))) == ["1"]


async def test_three_kills_one_behind_the_other(redis_url: str) -> None:
    async with world("offline", nodes=4, settings=several(redis_url)) as w:
        alice = await w.login("alice", node=3)
        phone, id = await managed(w, "bob", "phone0", node=0)
        again = 0
        for node in range(2):
            await chat(alice, "bob@localhost", f"{node} a", f"{node} b")
            await phone.receive_all()
            await acknowledge(phone)
            await kill(w, node)
            phone, id = await come(w, "bob", id, f"phone{node + 1}", node=node + 1)
            again += len(await given(phone))
            await acknowledge(phone)
            await w.advance(3)
        await chat(alice, "bob@localhost", "2 a", "2 b")
        await phone.receive_all()
        await acknowledge(phone)
        await kill(w, 2)
        got = texts(await given(await anew(w, "bob", "tablet", node=3)))
        assert got[-2:] == ["2 a", "2 b"]
        assert again + len(got) <= 2 + 4 + 6 - 2, "what the first node had was given once"
        second = await anew(w, "bob", "other", node=3)
        assert texts(await given(second)) == []


async def test_who_comes_second_is_given_nothing_of_many_kills(redis_url: str) -> None:
    async with world("offline", nodes=4, settings=several(redis_url)) as w:
        for node in range(3):
            await managed(w, "bob", f"r{node}", node=node)
        await chat(await w.login("alice", node=3), "bob@localhost", "1", "2")
        await w.settle()
        for node in range(3):
            await kill(w, node)
        first = await anew(w, "bob", "first", node=3)
        assert texts(await given(first)) == ["1", "2"]
        await acknowledge(first)
        await w.settle()
        rows = (await w.plugin("archive", 3).behind.scan("bob@localhost")).rows
        assert len([row for row in rows if row["point"] == NOTHING]) == 1, "it tells of all processes"
        assert texts(await given(await anew(w, "bob", "second", node=3))) == []


async def test_a_process_that_was_at_work_after_it_was_missed_may_have_had_anybody(redis_url: str) -> None:
    async with world("offline", nodes=3, settings=several(redis_url)) as w:
        alice = await w.login("alice", node=0)
        await cut_off(w, 0)
        await w.advance(5)
        bob, _ = await managed(w, "bob", "r", node=0)
        await chat(alice, "bob@localhost", "1")
        await bob.receive_all()
        await w.plugin("archive", 0).note_how_far()
        await w.plugin("archive", 1)._find_dead(0.0)
        assert texts(await given(await anew(w, "bob", "r2", node=1))) == ["1"]


async def test_others_are_told_of_a_session_before_it_is_given_anything(redis_url: str) -> None:
    async with world("offline", nodes=2, settings=several(redis_url)) as w:
        alice = await w.login("alice", node=0)
        await w.advance(5)
        await managed(w, "bob", "r", node=0)
        nodes, told = w.apps[0].nodes, list[str]()
        tell = nodes.other

        def heard(node: str, plugin: str, name: str, data: str) -> None:
            told.append(data)
            tell(node, plugin, name, data)

        nodes.other = heard
        nothing_else = json.dumps([[w.cluster(0).mesh.name, []], {}])
        await chat(alice, "bob@localhost", "1")
        assert told.count(nothing_else) == 1
        await chat(alice, "bob@localhost", "2")
        assert told.count(nothing_else) == 1, "its place went along"


async def test_a_loss_of_many_accounts_in_few_bytes() -> None:
    names = [f"user{number}@localhost" for number in range(1000)]
    loss = Loss(b"at", (number_of(name) for name in names))
    packed = loss.packed()
    assert len(packed) == 4000
    again = Loss.of(b"at", packed)
    assert all(name in again for name in names)
    assert sum(f"other{number}@localhost" in again for number in range(1000)) <= 1
