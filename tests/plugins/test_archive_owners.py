"""Whose archive is whose, and what is kept of it: remembered on each node until it is changed on any."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from archives import chat, find, world

from xmppd import ns
from xmppd.errors import StoreUnavailable
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

ALICE = "alice@localhost"


async def owner(w: World, node: int = 0) -> Any:
    """Whose archive that of alice is, as a node knows it."""
    return await w.plugin("archive", node)._owner(ALICE)


async def prefer(client: Client, standard: str) -> None:
    wanted = f"<prefs xmlns='{ns.MAM}' default='{standard}'><always/><never/></prefs>"
    assert (await client.ask("set", wanted)).get("type") == "result"


async def test_a_change_that_comes_while_the_row_is_read_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        archive = w.plugin("archive")
        await archive._owner(ALICE)
        archive.changed(ALICE)
        get, changes = archive.owners.get, ["never", "roster"]

        async def overtaken(account: str) -> Mapping[str, Any] | None:
            row = await get(account)
            if changes:
                wanted = {"account": account, "standard": changes.pop(0)}
                assert row is not None and await archive.owners.put_if(wanted, {"uid": row["uid"]})
                archive.changed(account)
            return row

        monkeypatch.setattr(archive.owners, "get", overtaken)
        assert (await owner(w)).preferences.standard == "roster" and not changes


async def test_who_asks_while_the_row_is_read_waits_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        archive, gate = w.plugin("archive"), asyncio.Event()
        await owner(w)
        archive.changed(ALICE)
        get, reads = archive.owners.get, list[str]()

        async def slow(account: str) -> Mapping[str, Any] | None:
            reads.append(account)
            await gate.wait()
            return await get(account)

        monkeypatch.setattr(archive.owners, "get", slow)
        asking = [asyncio.ensure_future(owner(w)) for _ in range(5)]
        await w.settle()
        asking[0].cancel()  # whoever asked first may be given up
        await w.settle()
        gate.set()
        first, *others = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert len({one.uid for one in others}) == 1 and reads == [ALICE]


async def test_a_row_is_read_though_who_asked_first_does_not_wait_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        archive, gate = w.plugin("archive"), asyncio.Event()
        get = archive.owners.get

        async def slow(account: str) -> Mapping[str, Any] | None:
            await gate.wait()
            return await get(account)

        monkeypatch.setattr(archive.owners, "get", slow)
        first = archive._learn(ALICE)  # as a message does that waits for its turn
        second = asyncio.ensure_future(owner(w))
        gate.set()
        async with asyncio.timeout(10):
            assert (await second).uid
        await first


async def test_who_waits_for_a_row_that_cannot_be_read_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        archive, gate = w.plugin("archive"), asyncio.Event()

        async def failing(account: str) -> None:
            await gate.wait()
            raise StoreUnavailable("it is away")

        with monkeypatch.context() as patch:
            patch.setattr(archive.owners, "get", failing)
            asking = [asyncio.ensure_future(owner(w)) for _ in range(3)]
            await w.settle()
            gate.set()
            told = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(error) for error in told] == ["it is away"] * 3
        assert (await owner(w)).uid


def give_up(w: World) -> None:
    """Neither of two nodes waits for the other any more, which is cut off."""
    for node in (0, 1):
        mesh = w.cluster(node).mesh
        mesh.give_up(next(iter(mesh.members.values())), "it is cut off")


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_what_is_changed_where_nobody_is_told_is_seen_when_nodes_part_or_meet(
    is_given_up: bool,
) -> None:
    async with world(nodes=2) as w:
        alice = await w.login("alice", node=1)
        w.cut(0, 1)
        if is_given_up:
            give_up(w)
            await w.settle()
        assert (await owner(w)).preferences.standard == "always"
        await prefer(alice, "never")
        assert (await owner(w)).preferences.standard == "always"
        if is_given_up:
            w.connect_nodes(0, 1)
        else:
            give_up(w)
        await w.settle()
        assert (await owner(w)).preferences.standard == "never"


async def test_who_reads_the_row_of_an_account_that_goes_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        archive = w.plugin("archive")
        old, delete = (await owner(w)).uid, archive.owners.delete

        async def late(account: str) -> None:
            await archive._owner(account)
            await delete(account)

        monkeypatch.setattr(archive.owners, "delete", late)
        await archive.forget(ALICE)
        assert (await owner(w)).uid != old


async def test_messages_go_on_while_it_is_read_again_whose_archives_theirs_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(nodes=2) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", node=0)
        await chat(alice, "bob@localhost", "1")
        archive, gate = w.plugin("archive", 0), asyncio.Event()
        get = archive.owners.get

        async def slow(account: str) -> Mapping[str, Any] | None:
            await gate.wait()
            return await get(account)

        await w.advance(60)  # who has just come may be about to say something again
        give_up(w)
        await w.settle()
        row = await get(ALICE)
        assert row is not None
        await archive.owners.put_if({"account": ALICE, "standard": "never"}, {"uid": row["uid"]})
        monkeypatch.setattr(archive.owners, "get", slow)
        await chat(alice, "bob@localhost", "2")
        assert len([one for one in await bob.receive_all() if one.tag.endswith("message")]) == 2
        gate.set()
        await w.settle()
        await chat(alice, "bob@localhost", "3")
        assert len([one for one in await bob.receive_all() if one.tag.endswith("message")]) == 1
        assert (await find(alice)).texts == ["1", "2"] and (await find(bob)).texts == ["1", "2", "3"]
