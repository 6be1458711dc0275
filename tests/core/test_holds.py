"""Who writes for accounts keeps them from being removed: for one, and for many."""

import asyncio
from collections.abc import Sequence
from contextvars import Context

import pytest
from patience import PATIENCE
from several import several

from xmppd.core.accounts import AccountUnknown
from xmppd.core.holds import Holds
from xmppd.core.roster.item import RosterItem
from xmppd.stream.sasl import Login
from xmppd.testing import World

pytestmark = pytest.mark.asyncio
ALICE, BOB, GHOST = "alice@localhost", "bob@localhost", "ghost@localhost"


async def test_of_many_those_are_given_that_there_are() -> None:
    async with World(nodes=1) as world:
        accounts = world.app.accounts
        for _ in range(2):  # the second time what is cached is asked
            async with world.app.server.writing_many([BOB, GHOST, ALICE]) as there:
                assert there == [BOB, ALICE]
        await accounts.create(GHOST, "secret")
        await accounts.disable(ALICE)
        await accounts.remove(BOB)
        async with world.app.server.writing_many([BOB, GHOST, ALICE]) as there:
            assert there == [GHOST, ALICE]


async def test_a_removal_waits_for_who_writes_for_many() -> None:
    async with World(nodes=1) as world:
        accounts, server = world.app.accounts, world.app.server
        async with server.writing_many([ALICE, BOB]):
            removing = asyncio.create_task(accounts.remove(ALICE))
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert not removing.done()
            async with server.writing_many([ALICE, BOB]) as there:
                assert there == [ALICE, BOB], "who is writing goes on"
            others = asyncio.create_task(_those_of(world, ALICE, BOB), context=Context())
            assert await others == [BOB], "nobody else begins to write for who is leaving"
        await removing
        with pytest.raises(AccountUnknown):
            await accounts.info(ALICE)


async def _those_of(world: World, *accounts: str) -> list[str]:
    async with world.app.server.writing_many(accounts) as there:
        return there


async def test_who_writes_for_many_and_fails_holds_nobody() -> None:
    async with World(nodes=1) as world:
        with pytest.raises(ZeroDivisionError):
            async with world.app.server.writing_many([ALICE]):
                raise ZeroDivisionError
        await asyncio.wait_for(world.app.accounts.remove(ALICE), PATIENCE)


async def test_a_removal_waits_for_who_writes_on_another_node(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        one, other = world.apps
        async with other.server.writing_both(ALICE, BOB):
            removing = asyncio.create_task(one.accounts.remove(ALICE), context=Context())
            for _ in range(50):
                await asyncio.sleep(0)
                await world.tell_each_other()
            assert not removing.done()
            await other.rosters.change(BOB, ALICE, lambda _: RosterItem(ALICE))  # what it waits for goes on
        await world.settle()
        await asyncio.wait_for(removing, PATIENCE)


async def test_who_closes_an_account_twice_opens_it_twice() -> None:
    holds = Holds(lambda account, login: _true(), _all)
    holds.close(ALICE)
    holds.close(ALICE)
    holds.open(ALICE)
    assert not await holds.enter(ALICE, None)
    holds.open(ALICE)
    assert await holds.enter(ALICE, None)


async def test_what_was_read_before_an_account_was_closed_counts_no_more() -> None:
    answers, gate = [True, False], asyncio.Event()

    async def exists(account: str, login: Login | None) -> bool:
        found = answers.pop(0)
        await gate.wait()
        return found

    holds = Holds(exists, _all)
    entering = asyncio.create_task(holds.enter(ALICE, None))
    await asyncio.sleep(0)
    await holds.still(ALICE)
    gate.set()
    assert await entering is False


async def _true() -> bool:
    return True


async def _all(accounts: Sequence[str]) -> Sequence[str]:
    return accounts
