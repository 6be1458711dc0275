"""Names of players stay those of one player when a node dies in the midst, and when many want one at once."""

import asyncio
import random
from itertools import pairwise

import pytest
from mortal import Mortal
from several import several

from xmppd.errors import StanzaError, StoreError
from xmppd.testing import World

ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"
DAY = 86_400


async def give(world: World, account: str, name: str, node: int = 0) -> str:
    """The name that it took, or the condition of the refusal."""
    try:
        found: str = await world.plugin("players", node).give_name(account, name, "player", False)
    except StanzaError as error:
        return error.condition
    return found


async def name_of(world: World, account: str) -> str | None:
    name: str | None = await world.plugin("players").name_of(account)
    return name


async def account_of(world: World, name: str) -> str | None:
    account: str | None = await world.plugin("players").account_of(name)
    return account


@pytest.mark.asyncio
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("write", range(1, 9))
async def test_a_kill_at_any_write_of_a_change_is_set_right(write: int, is_done: bool) -> None:
    """With two rows for each of the names; some of the numbers are beyond the last write."""
    async with World(plugins=("players",), plugin_config={"players": {"rename_days": 0}}) as world:
        assert await give(world, ALICE, "Mim#EUW") == "Mim#EUW"
        mortal = Mortal(world, "players_")
        mortal.die_at(write, is_done=is_done)
        try:
            await give(world, ALICE, "Ina#EUW")
        except StoreError:
            assert mortal.writes >= write
        mortal.revive()
        has = await name_of(world, ALICE)
        assert has in ("Mim#EUW", "Ina#EUW")
        other = "Ina#EUW" if has == "Mim#EUW" else "Mim#EUW"
        assert await account_of(world, str(has)) == ALICE
        assert await account_of(world, other) is None
        await world.advance(31)
        assert await give(world, BOB, str(has)) == "conflict"
        if has == "Mim#EUW":
            assert await give(world, BOB, other) == other
            assert await give(world, ALICE, other) == "conflict"
        else:
            assert await give(world, BOB, other) == "conflict", "it is kept back"
            world.clock.seconds += 90 * DAY
            assert await give(world, BOB, other) == other
        assert await account_of(world, other) == BOB
        assert await name_of(world, ALICE) == has


@pytest.mark.asyncio
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("write", range(1, 9))
async def test_who_died_in_the_midst_goes_on_by_a_repeat(write: int, is_done: bool) -> None:
    async with World(plugins=("players",), plugin_config={"players": {"rename_days": 0}}) as world:
        await give(world, ALICE, "Mim#EUW")
        mortal = Mortal(world, "players_")
        mortal.die_at(write, is_done=is_done)
        try:
            await give(world, ALICE, "Ina#EUW")
        except StoreError:
            assert mortal.writes >= write
        mortal.revive()
        assert await give(world, ALICE, "Ina#EUW") == "Ina#EUW"
        assert await give(world, BOB, "Ina#EUW") == await give(world, BOB, "Mim#EUW") == "conflict"
        await world.app.commands.call("user remove", {"account": ALICE})
        assert await give(world, BOB, "Ina#EUW") == await give(world, BOB, "Mim#EUW") == "conflict"
        world.clock.seconds += 91 * DAY
        assert await give(world, BOB, "Ina#EUW") == "Ina#EUW"
        assert await give(world, CAROL, "Mim#EUW") == "Mim#EUW"


@pytest.mark.asyncio
async def test_a_claim_that_was_overtaken_comes_too_late() -> None:
    """Alice's node stops for a minute between its claim and its end; bob takes the name meanwhile."""
    async with World(plugins=("players",), plugin_config={"players": {"rename_days": 0}}) as world:
        players = world.plugin("players")
        gate, held = asyncio.Event(), asyncio.Event()
        hold_all = players._hold_all

        async def slow(account: str, *args: object, **named: object) -> bool:
            taken: bool = await hold_all(account, *args, **named)
            if account == ALICE:
                held.set()
                await gate.wait()
            return taken

        players._hold_all = slow
        slowly = asyncio.ensure_future(give(world, ALICE, "Zoe#EUW"))
        await held.wait()
        assert await give(world, BOB, "Zoe#EUW") == "conflict"
        world.clock.seconds += 31
        assert await give(world, BOB, "Zoe#EUW") == "Zoe#EUW"
        gate.set()
        assert await slowly == "conflict"
        assert (await name_of(world, ALICE), await name_of(world, BOB)) == (None, "Zoe#EUW")


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_of_many_who_want_some_names_at_once_one_has_each(seed: int, redis_url: str) -> None:
    chance = random.Random(seed)
    config = {"players": {"rename_days": 0, "kept_days": 0}}
    names = ["Mim#EUW", "mirn#EUW", "Ina#EUW", "lna#EUW", "Zoe#11"]
    accounts = [ALICE, BOB, CAROL]
    async with World(
        plugins=("players",), plugin_config=config, nodes=3, settings=several(redis_url)
    ) as world:
        for _ in range(6):
            deeds = [
                give(world, chance.choice(accounts), chance.choice(names), chance.randrange(3))
                for _ in range(6)
            ]
            outcomes = await asyncio.gather(*deeds)
            assert set(outcomes) <= {*names, "conflict", "resource-constraint"}
        held = [name for account in accounts if (name := await name_of(world, account))]
        assert held
        module = world.plugin("players").take.__globals__
        keys = [set(module["keys_of"](name)) for name in held]
        assert all(one.isdisjoint(other) for one, other in pairwise(keys))
        assert not keys[0] & keys[-1] or len(keys) == 1
        for account in accounts:
            if name := await name_of(world, account):
                assert await account_of(world, name) == account
