"""Blocks on several nodes (XEP-0191): they hold everywhere once their client was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from several import bodies, several

from xmppd import ns
from xmppd.errors import StoreTimeout
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

ALICE, BOB = "alice@localhost", "bob@localhost"
CHAT = "<message to='{to}' type='chat' id='m'><body>{body}</body></message>"
BLOCK = f"<block xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></block>"
UNBLOCK = f"<unblock xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></unblock>"


def three(redis_url: str) -> World:
    return World(plugins=("blocking", "offline"), settings=several(redis_url), nodes=3)


async def ask(client: Client, payload: str) -> None:
    await client.send(f"<iq type='set' id='b'>{payload}</iq>")


async def answered(client: Client) -> bool:
    return any(tree.get("id") == "b" and tree.get("type") == "result" for tree in await client.receive_all())


async def refused(client: Client, to: str) -> bool:
    """Whether a message is refused as to who is not there."""
    await client.receive_all()
    await client.send(CHAT.format(to=to, body="x"))
    return [refusal(tree) for tree in await client.receive_all()] == ["cancel service-unavailable"]


def seen(trees: list[Any]) -> set[tuple[str, str | None]]:
    return {(tree.get("from"), tree.get("type")) for tree in trees if tree.tag.endswith("presence")}


@pytest.mark.parametrize("node", [0, 1, 2])
@pytest.mark.usefixtures("each_carrier")
async def test_a_block_holds_wherever_either_is(redis_url: str, node: int) -> None:
    async with three(redis_url) as world:
        alices = [await world.login("alice", node=0), await world.login("alice", node=2)]
        bobs = [await world.login("bob", node=node), await world.login("bob", node=1)]
        await world.befriend(alices[0], bobs[0])
        for alice in alices:
            await alice.ask("get", f"<blocklist xmlns='{ns.BLOCKING}'/>")
        await ask(alices[0], BLOCK)
        assert await answered(alices[0])
        push = f"<iq type='set' id='*' to='{alices[1].jid}'>{BLOCK}</iq>"
        await alices[1].expect(push)
        for bob in bobs:
            assert seen(await bob.receive_all()) == {(alice.jid, "unavailable") for alice in alices}
        for bob in bobs:
            for to in (ALICE, *(alice.jid for alice in alices)):
                assert await refused(bob, to)
                await bob.send(
                    f"<presence to='{to}'/><iq type='get' id='i' to='{to}'><query xmlns='urn:x'/></iq>"
                )
                assert [refusal(tree) for tree in await bob.receive_all()] == ["cancel service-unavailable"]
            await bob.send("<presence><show>away</show></presence>")
            await bob.receive_all()
        for alice in alices:
            await alice.expect_nothing()
        for alice in alices:
            await alice.send("<presence><show>away</show></presence>")
            for bob in bobs:
                await alice.send(CHAT.format(to=bob.jid, body="x"))
                answers = [tree for tree in await alice.receive_all() if tree.get("id") == "m"]
                assert [refusal(tree) for tree in answers] == ["cancel not-acceptable"]
        for bob in bobs:
            assert not seen(await bob.receive_all()) & {(alice.jid, None) for alice in alices}
        late = await world.login("bob", node=2)
        assert await refused(late, alices[0].jid)
        for alice in alices:
            await alice.receive_all()
        await ask(alices[1], UNBLOCK)
        assert await answered(alices[1])
        shown = seen(await alices[0].receive_all())
        assert {(bob.jid, None) for bob in (*bobs, late)} <= shown
        for bob in bobs:
            assert {(alice.jid, None) for alice in alices} <= seen(await bob.receive_all())
        await bobs[0].send(CHAT.format(to=ALICE, body="again"))
        assert [await bodies(alice) for alice in alices] == [["again"], ["again"]]


async def test_who_asked_is_answered_when_all_nodes_act_by_it(redis_url: str) -> None:
    async with three(redis_url) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await bob.send(CHAT.format(to=ALICE, body="before"))
        assert await bodies(alice) == ["before"]
        go_on = asyncio.Event()
        take = world.cluster(1)._take_blocks

        async def late(arguments: Mapping[str, Any]) -> None:
            await go_on.wait()
            await take(arguments)

        world.cluster(1).calls.serve("blocks", late)
        await ask(alice, BLOCK)
        assert not await answered(alice)
        go_on.set()
        assert await answered(alice)
        assert await refused(bob, ALICE)


@pytest.mark.parametrize("address", [BOB, "bob@localhost/b"])
async def test_what_is_under_way_between_others_does_not_arrive(redis_url: str, address: str) -> None:
    async with three(redis_url) as world:
        alice = await world.login("alice", "a", node=0)
        second = await world.login("alice", "b", priority=5, node=2)
        bob = await world.login("bob", "b", node=1)
        await alice.receive_all()
        await second.send(f"<iq type='get' id='asked' to='{bob.jid}'><query xmlns='urn:x'/></iq>")
        await bob.receive_all()
        world.cut(1, 2)
        await bob.send(f"<iq type='result' id='asked' to='{second.jid}'/>")
        await bob.send(CHAT.format(to=second.jid, body="under way"))
        await bob.send(f"<iq type='get' id='i' to='{second.jid}'><query xmlns='urn:x'/></iq>")
        await bob.send(f"<presence to='{second.jid}'/>")
        await ask(alice, BLOCK.replace(BOB, address))
        assert await answered(alice)
        world.connect_nodes(1, 2)
        await second.expect_nothing()
        assert [refusal(tree) for tree in await bob.receive_all()] == ["cancel service-unavailable"]
        assert [row async for row in world.plugin("offline").queue.everything()] == []


async def test_what_waits_for_something_else_is_not_sent_on(redis_url: str) -> None:
    async with three(redis_url) as world:
        alice = await world.login("alice", "a", node=0)
        second = await world.login("alice", "b", priority=5, node=2)
        bob = await world.login("bob", "c", node=1)
        await alice.receive_all()
        world.cut(1, 2)
        await bob.send(CHAT.format(to=second.jid, body="under way"))
        await bob.send(CHAT.format(to=alice.jid, body="waits"))
        await ask(alice, BLOCK)
        assert await answered(alice)
        world.connect_nodes(1, 2)
        assert await bodies(alice) == await bodies(second) == []
        assert [refusal(tree) for tree in await bob.receive_all()] == ["cancel service-unavailable"]


async def test_a_node_that_is_cut_off_hears_of_it_by_redis(redis_url: str) -> None:
    async with three(redis_url) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        second = await world.login("alice", node=1)
        await alice.receive_all()
        await second.ask("get", f"<blocklist xmlns='{ns.BLOCKING}'/>")
        world.cut(0, 1)
        await ask(alice, BLOCK)
        assert not await answered(alice)
        await world.advance(6)
        assert await answered(alice)
        assert await refused(bob, second.jid)
        pushes = [tree for tree in await second.receive_all() if tree.tag.endswith("iq")]
        assert [tree[0].tag for tree in pushes] == [f"{{{ns.BLOCKING}}}block"]


async def test_who_heard_nothing_for_a_while_looks_at_all_lists(redis_url: str) -> None:
    async with three(redis_url) as world:
        alice, bob = await world.login("alice", node=1), await world.login("bob", node=1)
        carol = await world.login("carol", node=0)
        await carol.drop()
        await bob.send(CHAT.format(to="carol@localhost", body="kept"))
        await bob.expect_nothing()
        for account in (ALICE, "carol@localhost"):
            await world.app.blocks.write(account, blocked=[BOB], unblocked=[], since=0.0)
        world.apps[1].elsewhere.back()
        await world.settle()
        assert await refused(bob, alice.jid)
        assert await refused(bob, "carol@localhost")


async def test_of_two_changes_at_once_both_hold(redis_url: str) -> None:
    async with three(redis_url) as world:
        alice, second = await world.login("alice", node=0), await world.login("alice", node=1)
        alice.write(f"<iq type='set' id='b'>{BLOCK}</iq>")
        second.write(f"<iq type='set' id='b'>{BLOCK.replace('bob', 'carol')}</iq>")
        await world.settle()
        for node in (0, 1):
            assert world.apps[node].blocks.known(ALICE) == {BOB, "carol@localhost"}


async def test_the_heir_of_a_name_has_no_list_on_any_node(redis_url: str) -> None:
    async with three(redis_url) as world:
        bob = await world.login("bob", node=1)
        await world.app.blocking.block(ALICE, [BOB])
        assert await refused(bob, ALICE)
        await world.app.server.remove_account(ALICE)
        await world.app.accounts.create(ALICE, "secret")
        heir = await world.login("alice", node=2)
        await bob.send(CHAT.format(to=ALICE, body="hi"))
        assert await bodies(heir) == ["hi"]


async def test_a_change_that_cannot_be_read_is_acted_by_all_the_same(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with three(redis_url) as world:
        alice, second = await world.login("alice", node=0), await world.login("alice", node=1)
        bob = await world.login("bob", node=1)
        await alice.receive_all()
        await second.receive_all()

        async def fail(account: str) -> list[str]:
            raise StoreTimeout("it does not answer")

        monkeypatch.setattr(world.apps[1].blocks, "of", fail)
        await ask(alice, BLOCK)
        assert await answered(alice)
        assert await refused(bob, ALICE)
        assert await refused(bob, second.jid)
