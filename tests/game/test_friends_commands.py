"""What back ends do with friends."""

from typing import Any

import pytest

from xmppd.admin.commands import Caller
from xmppd.errors import CommandError
from xmppd.testing import World

ALICE, BOB, CAROL, DORA = (f"{name}@localhost" for name in ("alice", "bob", "carol", "dora"))
NAMES = ("alice", "bob", "carol", "dora")


def world_of(*plugins: str, **config: Any) -> World:
    return World(plugins=("friends", *plugins), plugin_config={"friends": config}, accounts=NAMES)


async def call(world: World, command: str, **arguments: Any) -> Any:
    found = await world.app.commands.call(command, arguments, Caller("http", "backend"))
    await world.settle()
    return found


async def states(world: World, player: str) -> dict[str, str]:
    return {row["friend"]: row["state"] for row in await call(world, "friend list", player=player)}


@pytest.mark.asyncio
async def test_friends_are_made_and_parted_many_at_once() -> None:
    async with world_of() as world:
        pairs = [f"{ALICE} {BOB}", f"{BOB} {CAROL}", f"{ALICE} nobody@localhost", f"{ALICE} {ALICE}"]
        report = await call(world, "friend befriend-many", pair=pairs)
        assert report["counts"] == {"done": 2, "refused": 2}
        assert [row["refused"] for row in report["rows"]] == [
            "there is no player nobody@localhost",
            "nobody is a friend of his own",
        ]
        assert await states(world, BOB) == {ALICE: "friend", CAROL: "friend"}
        report = await call(world, "friend part-many", pair=pairs[:2])
        assert report["counts"] == {"done": 2, "refused": 0}
        assert await states(world, BOB) == {}
        for wrong in ({"pair": ["one"]}, {"pair": pairs, "after": "x"}, {"pair": ["a b"] * 10_001}):
            with pytest.raises(CommandError):
                await call(world, "friend befriend-many", **wrong)


@pytest.mark.asyncio
async def test_a_list_is_replaced() -> None:
    async with world_of("blocking", friends=2) as world:
        await call(world, "friend befriend", one=ALICE, other=BOB)
        await call(world, "friend request", one=DORA, other=ALICE)
        await call(world, "block add", account=ALICE, address=DORA)
        replaced = await call(world, "friend replace", player=ALICE, friend=[CAROL, DORA])
        assert replaced == {
            "account": ALICE,
            "added": 1,
            "removed": 1,
            "refused": [{"friend": DORA, "refused": "One of them has blocked the other."}],
        }
        assert await states(world, ALICE) == {CAROL: "friend"}
        assert (await call(world, "friend replace", player=ALICE))["removed"] == 1
        with pytest.raises(CommandError, match="at most 2 friends"):
            await call(world, "friend replace", player=ALICE, friend=[BOB, CAROL, DORA])
        with pytest.raises(CommandError, match="his own"):
            await call(world, "friend replace", player=ALICE, friend=[ALICE])


@pytest.mark.asyncio
async def test_friends_of_another_platform_are_taken_over() -> None:
    async with world_of("players") as world:
        for account, id in ((ALICE, "1"), (BOB, "2"), (CAROL, "3")):
            await call(world, "player link", account=account, platform="steam", id=id)
        await call(world, "player rename", account=ALICE, name="Zoe#EUW")
        rows = await call(world, "friend import", player="Zoe#EUW", platform="steam", id=["1", "2", "9"])
        assert [(row["account"], row["state"]) for row in rows] == [
            (ALICE, "unknown"),
            (BOB, "friend"),
            ("", "unknown"),
        ]
        await call(world, "friend import", player=ALICE, platform="steam", id=["3"], ask=True)
        assert await states(world, ALICE) == {BOB: "friend", CAROL: "asking"}


@pytest.mark.asyncio
async def test_requests_in_the_name_of_players() -> None:
    async with world_of() as world:
        asked = await call(world, "friend request", one=ALICE, other=BOB, text="hi")
        assert asked == {"account": ALICE, "friend": BOB, "state": "asking"}
        assert (await call(world, "friend decline", one=BOB, other=ALICE))["state"] == "none"
        await call(world, "friend request", one=ALICE, other=BOB)
        assert (await call(world, "friend cancel", one=ALICE, other=BOB))["state"] == "none"
        await call(world, "friend request", one=ALICE, other=BOB)
        assert (await call(world, "friend accept", one=BOB, other=ALICE))["state"] == "friend"
        with pytest.raises(CommandError, match="has not asked"):
            await call(world, "friend accept", one=BOB, other=CAROL)


@pytest.mark.asyncio
async def test_what_rosters_say_otherwise_is_found_and_mended() -> None:
    async with world_of() as world:
        await call(world, "friend befriend", one=ALICE, other=BOB)
        await call(world, "roster part", one=ALICE, other=BOB)
        found = [{"friend": BOB, "state": "friends", "mine": "none", "theirs": "none"}]
        assert await call(world, "friend check", player=ALICE) == found
        assert await call(world, "friend check", player=ALICE, repair=True) == found
        assert await call(world, "friend check", player=ALICE) == []
        assert await world.app.server.rosters.following(ALICE) == (BOB,)


@pytest.mark.asyncio
async def test_rosters_from_before_are_taken_over() -> None:
    async with world_of() as world:
        server = world.app.server
        await server.rosters.relate(ALICE, BOB, "both")
        await server.rosters.relate(ALICE, CAROL, "asking")
        found = await call(world, "friend check", player=ALICE, adopt=True)
        assert [(row["friend"], row["mine"]) for row in found] == [(BOB, "both"), (CAROL, "asking")]
        assert await call(world, "friend check", player=ALICE) == []
        assert await states(world, ALICE) == {BOB: "friend"}


@pytest.mark.asyncio
async def test_events_tell_what_happened() -> None:
    async with world_of() as world:
        friends, told = world.plugin("friends"), []
        events = world.app.server.events
        kinds = ("friend.requested", "friend.made", "friend.ended")

        def hear(event: Any) -> None:
            told.append((event.kind, event.account, dict(event.data)))

        events.compile([events.kinds[kind] for kind in kinds], [(hear, ("friend.*",))])
        await call(world, "friend request", one=ALICE, other=BOB, text="hi")
        await call(world, "friend accept", one=BOB, other=ALICE)
        await call(world, "friend accept", one=BOB, other=ALICE)
        await call(world, "friend part", one=ALICE, other=BOB)
        assert told == [
            ("friend.requested", ALICE, {"to": BOB, "text": "hi"}),
            ("friend.made", ALICE, {"friend": BOB, "by": BOB}),
            ("friend.ended", BOB, {"friend": ALICE, "by": ALICE, "was": "friends"}),
        ]
        assert (friends.asked.value, friends.made.value, friends.ended.value) == (1, 1, 1)
