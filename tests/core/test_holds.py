"""Who writes for accounts keeps them from being removed: for one, and for many."""

import asyncio

import pytest
from patience import PATIENCE

from xmppd.core.accounts import AccountUnknown
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
                assert there == [BOB], "nobody begins to write for who is leaving"
        await removing
        with pytest.raises(AccountUnknown):
            await accounts.info(ALICE)


async def test_who_writes_for_many_and_fails_holds_nobody() -> None:
    async with World(nodes=1) as world:
        with pytest.raises(ZeroDivisionError):
            async with world.app.server.writing_many([ALICE]):
                raise ZeroDivisionError
        await asyncio.wait_for(world.app.accounts.remove(ALICE), PATIENCE)
