"""Requests that cross to another node are answered once, whatever becomes of that."""

from typing import Any
from xml.etree.ElementTree import Element

import pytest
from managing import managed, resume
from several import several

from xmppd.cluster import asked
from xmppd.cluster.asked import Asked
from xmppd.core.origin import Host
from xmppd.errors import StanzaError
from xmppd.testing import Client, World

ASKED = "<iq type='get' id='a' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>"
ANSWER = "<iq type='result' id='a' to='{to}'/>"
NAME = ("alice@localhost/x", "bob@localhost/y", "a")
MISSED = StanzaError("service-unavailable")


async def answers(client: Client) -> list[Any]:
    found: list[Element] = [tree for tree in await client.receive_all() if tree.get("id") == "a"]
    return [(tree.get("type"), tree.get("from")) for tree in found]


async def give_up(world: World) -> None:
    world.cut(0, 1)
    await world.advance(6)


@pytest.mark.asyncio
@pytest.mark.parametrize("is_heard", [False, True], ids=["not acknowledged", "acknowledged"])
@pytest.mark.parametrize("is_before", [False, True], ids=["answered after the cut", "answered in the cut"])
async def test_a_late_answer_to_what_was_refused_is_dropped(
    redis_url: str, is_heard: bool, is_before: bool
) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        if not is_heard:
            world._trunks[1, 0].write = lambda frames: None  # type: ignore[method-assign]
        await alice.send(ASKED.format(to=bob.jid))
        assert (await bob.receive()).get("id") == "a"
        world.cut(0, 1)
        if is_before:
            await bob.send(ANSWER.format(to=alice.jid))
        await give_up(world)
        assert await answers(alice) == [("error", bob.jid)]
        world.connect_nodes(0, 1, trunk=2)
        await world.settle()
        if not is_before:
            await bob.send(ANSWER.format(to=alice.jid))
        assert await answers(alice) == []
        await alice.send(ASKED.format(to=bob.jid))
        await bob.receive_all()
        await bob.send(ANSWER.format(to=alice.jid))
        assert await answers(alice) == [("result", bob.jid)], "who asks again is answered"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_answered", [False, True])
async def test_who_was_asked_elsewhere_and_answers_here_is_who_answers(
    redis_url: str, is_answered: bool
) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice = await world.login("alice", node=0)
        bob, id = await managed(world, "bob", "r", node=1)
        await alice.send(ASKED.format(to=bob.jid))
        assert [tree.get("id") for tree in await bob.receive_all() if tree.get("type") == "get"] == ["a"]
        await bob.drop()
        bob = await resume(world, bob, id, node=0)
        if is_answered:
            await bob.send(ANSWER.format(to=alice.jid))
            assert await answers(alice) == [("result", bob.jid)]
        await give_up(world)
        assert await answers(alice) == ([] if is_answered else [("error", bob.jid)])
        await bob.send(ANSWER.format(to=alice.jid))
        assert len(await answers(alice)) == is_answered, "what nobody is known to have asked is handed on"


@pytest.mark.asyncio
async def test_what_was_answered_is_not_refused_when_the_node_is_lost(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        for to in (bob.jid, bob.jid.upper().replace("BOB-2", "bob-2"), f"{bob.bare}/nobody"):
            await alice.send(ASKED.format(to=to))
            await bob.receive_all()
            await bob.send(ANSWER.format(to=alice.jid))
            await alice.receive_all()
        await bob.receive_all()
        await give_up(world)
        assert await answers(alice) == []


@pytest.mark.asyncio
async def test_an_error_is_not_for_the_next_session_of_the_name(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", "x", node=0), await world.login("bob", node=1)
        await alice.send(ASKED.format(to=bob.jid))
        await alice.drop()
        again = await world.login("alice", "x", node=0)
        await give_up(world)
        assert await answers(again) == []


@pytest.mark.asyncio
async def test_iqs_within_a_node_are_not_remembered(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=0)
        await alice.send(ASKED.format(to=bob.jid))
        assert not world.cluster(0).iqs.asked.open


@pytest.mark.asyncio
async def test_an_answer_that_overtakes_the_end_of_its_trunk_counts() -> None:
    asked = Asked()
    request = asked.begin(Host(NAME[0]), NAME, 1)
    assert asked.answer(NAME)
    request.missed(MISSED)
    assert request.end.result() is None
    assert not asked.open
    assert not asked.refused


@pytest.mark.asyncio
async def test_of_two_with_one_name_the_later_is_answered() -> None:
    asked = Asked()
    first, _ = asked.begin(Host(NAME[0]), NAME, 1), asked.begin(Host(NAME[0]), NAME, 2)
    first.missed(MISSED)
    assert first.end.exception() is MISSED
    assert asked.answer(NAME)


@pytest.mark.asyncio
async def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MOST", 3)
    monkeypatch.setattr(asked, "BYTES", 1000)
    table = Asked()
    requests = [table.begin(Host(NAME[0]), (*NAME[:2], str(number)), 1) for number in range(5)]
    assert [request.name[2] for request in table.open.of(1)] == ["2", "3", "4"]
    requests[0].missed(MISSED)
    assert requests[0].end.exception() is MISSED, "it is refused, though forgotten"
    assert table.answer(requests[0].name), "and may be answered twice"
    table.begin(Host(NAME[0]), (*NAME[:2], "x" * 950), 1)
    assert len(table.open) == 1
    table.begin(Host(NAME[0]), (*NAME[:2], "x" * 1000), 1)
    assert not table.open
    for request in requests[1:]:
        request.end.cancel()
