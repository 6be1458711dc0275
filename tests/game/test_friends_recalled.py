"""What a node recalls of two players is no more than a guess: the store has the last word."""

import pytest

from xmppd.errors import StanzaError
from xmppd.testing import World

NAMES = ("alice", "bob", "carol", "dora")
ALICE, BOB, CAROL, DORA = (f"{name}@localhost" for name in NAMES)


def forget(world: World) -> None:
    """As another process, which has heard nothing yet."""
    world.plugin("friends").begin_telling()


@pytest.mark.asyncio
async def test_who_asks_again_is_told_how_it_stands() -> None:
    async with World(plugins=("friends",), accounts=NAMES) as world:
        friends = world.plugin("friends")
        first = await friends.ask(ALICE, BOB, "hello")
        for _ in range(2):
            again = await friends.ask(ALICE, BOB, "hello?")
            assert (again.state, again.text, again.version) == ("asked", "hello", first.version)
            forget(world)
        assert (await friends.ask(BOB, ALICE, "")).state == "friends"
        for _ in range(2):
            assert (await friends.ask(ALICE, BOB, "")).state == "friends"
            forget(world)


@pytest.mark.asyncio
async def test_crossing_requests_make_friends_whatever_is_recalled() -> None:
    async with World(plugins=("friends",), accounts=NAMES) as world:
        friends = world.plugin("friends")
        await friends.ask(ALICE, BOB, "")
        forget(world)
        assert (await friends.ask(BOB, ALICE, "")).state == "friends"


@pytest.mark.asyncio
async def test_a_friend_who_asks_again_is_refused_nothing_for_lack_of_room() -> None:
    config = {"friends": {"friends": 1}}
    async with World(plugins=("friends",), accounts=NAMES, plugin_config=config) as world:
        friends = world.plugin("friends")
        await friends.befriended_by_force(ALICE, BOB)
        forget(world)
        assert (await friends.ask(ALICE, BOB, "")).state == "friends"
        with pytest.raises(StanzaError, match="no room for more"):
            await friends.ask(ALICE, CAROL, "")


@pytest.mark.asyncio
async def test_what_is_recalled_and_not_so_any_more_is_not_acted_by() -> None:
    async with World(plugins=("friends",), accounts=NAMES) as world:
        friends = world.plugin("friends")
        await friends.ask(ALICE, BOB, "")
        recalled = friends.recalled(ALICE, BOB)
        await friends.end(ALICE, BOB)
        friends._told.put(f"{ALICE} {BOB}", recalled)
        with pytest.raises(StanzaError) as refused:
            await friends.grant(BOB, ALICE)
        assert refused.value.condition == "item-not-found"
        assert not await friends.are_friends(ALICE, BOB)
        assert (await friends.ask(ALICE, BOB, "")).state == "asked"
        asked = friends.recalled(ALICE, BOB)
        await friends.grant(BOB, ALICE)
        friends._told.put(f"{ALICE} {BOB}", asked)
        assert (await friends.ask(BOB, ALICE, "")).state == "friends"
        await friends.end(ALICE, BOB)
        friends._told.put(f"{ALICE} {BOB}", asked)
        assert (await friends.ask(BOB, ALICE, "")).state == "asked", "there was no request to accept any more"


@pytest.mark.asyncio
async def test_of_a_pair_that_is_recalled_only_the_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("friends",), accounts=NAMES) as world:
        friends, get = world.plugin("friends"), world.app.store.get
        read: list[str] = []

        async def noted(table: object, key: object) -> object:
            read.append(table.name)  # type: ignore[attr-defined]
            return await get(table, key)  # type: ignore[arg-type]

        await friends.ask(ALICE, DORA, "")  # rosters and accounts are known then
        await friends.ask(BOB, DORA, "")
        monkeypatch.setattr(world.app.store, "get", noted)
        await friends.ask(ALICE, BOB, "")
        assert read == ["friends_pairs"] * 2
        del read[:]
        await friends.grant(BOB, ALICE)
        assert read == ["friends_pairs"]
