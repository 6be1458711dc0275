"""What plugins for games keep of a person is exported, and erased with him."""

import io
import json
import zipfile

import pytest
from leftovers import allowed, rows_with

from xmppd.admin.commands import Caller
from xmppd.testing import World

NAME = "zoë.q9"
ZOE = f"{NAME}@localhost"
ADMIN = Caller("socket", "root")


async def lived(world: World) -> None:
    """She has a name, and had another; has a friend, asked one and was asked; and has played with both."""
    call = world.app.commands.call
    for name in ("Zoe#EUW", "Zara#EUW"):
        await call("player rename", {"account": ZOE, "name": name}, ADMIN)
    await call("player link", {"account": ZOE, "platform": "steam", "id": "7"}, ADMIN)
    await call("friend befriend", {"one": ZOE, "other": "bob@localhost"}, ADMIN)
    await call("friend request", {"one": ZOE, "other": "carol@localhost"}, ADMIN)
    await call("friend request", {"one": "dora@localhost", "other": ZOE}, ADMIN)
    await call("friend played", {"player": [ZOE, "bob@localhost"]}, ADMIN)
    zoe = await world.login(NAME)
    await zoe.send("<iq type='set' id='1'><group xmlns='urn:xmppd:friends:0' name='Raid' priority='1'/></iq>")
    asked = "<player xmlns='urn:xmppd:players:0' name='x#yz'/>"
    await zoe.send(f"<iq type='get' id='2' to='localhost'>{asked}</iq>")
    await world.settle()


@pytest.mark.asyncio
async def test_all_of_it_is_exported_and_nothing_is_left() -> None:
    async with World(plugins=("players", "friends"), accounts=(NAME, "bob", "carol", "dora")) as world:
        await lived(world)
        tables = {table for table, _, _ in await rows_with(world, NAME)}
        ours = {table for table in tables if table.startswith(("players_", "friends_"))}
        assert ours == {
            *(f"players_{it}" for it in ("profiles", "names", "history", "links", "owners", "spent")),
            *(f"friends_{it}" for it in ("pairs", "cards", "due", "groups", "met")),
        }
        exported = await world.app.commands.call("account export", {"account": ZOE}, ADMIN)
        content = b"".join([piece async for piece in exported.pieces])
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            text = json.dumps([archive.read(name).decode() for name in archive.namelist()])
        for word in ("Zara#EUW", "Zoe#EUW", "steam", "Raid", "bob@localhost"):
            assert word in text, word
        await world.app.commands.call("account erase", {"account": ZOE}, ADMIN)
        await world.settle()
        may = allowed(world)
        assert [it for it in await rows_with(world, NAME) if it[:2] not in may] == []


@pytest.mark.asyncio
async def test_all_of_it_follows_a_new_address() -> None:
    async with World(plugins=("players", "friends"), accounts=(NAME, "bob", "carol", "dora")) as world:
        await lived(world)
        await world.app.commands.call("account rename", {"old": ZOE, "new": "zora@localhost"}, ADMIN)
        await world.settle()
        await world.advance(10)
        left = {it[0] for it in await rows_with(world, NAME)}
        assert not {it for it in left if it.startswith("players_")}
        friends = await world.app.commands.call("friend list", {"player": "Zara#EUW"}, ADMIN)
        assert {row["friend"]: row["state"] for row in friends} == {
            "bob@localhost": "friend",
            "carol@localhost": "asking",
            "dora@localhost": "asked",
        }
        assert await world.app.commands.call("friend check", {"player": "zora@localhost"}, ADMIN) == []
        left = {it[0] for it in await rows_with(world, NAME)}
        assert {it for it in left if it.startswith("friends_")} <= {"friends_due"}
        world.clock.seconds += 30 * 86_400
        await world.advance(300)
        assert await world.app.commands.call("friend list", {"player": "dora@localhost"}, ADMIN) == []
        friends = await world.app.commands.call("friend list", {"player": "zora@localhost"}, ADMIN)
        assert [row["friend"] for row in friends] == ["bob@localhost"]
