"""Web hooks: what is durable of games is told, at whatever write the process was killed that did it."""

from collections.abc import Mapping
from typing import Any

import pytest
from hookkills import Act, Look, killed_at_each_write
from inviting import KEY

from xmppd.testing import Client, World

pytestmark = pytest.mark.one_node

ALICE = "alice@localhost"
KEYS: Mapping[str, Mapping[str, Any]] = {
    "invites": {"message": "", "key": KEY},
}


async def call(world: World, command: str, /, **arguments: Any) -> Any:
    return await world.app.commands.call(command, arguments)


async def ask(world: World, client: Client, name: str) -> None:
    await world.plugin("friends").ask(ALICE, f"{name}@localhost", "")


async def is_asked(world: World, name: str) -> bool:
    return bool((await world.plugin("friends").between(ALICE, f"{name}@localhost")).state == "asked")


async def rename(world: World, client: Client, name: str) -> None:
    await call(world, "player rename", account=f"{name}@localhost", name=f"{name}#EUW")


async def is_named(world: World, name: str) -> bool:
    row = await world.plugin("players").profiles.get(f"{name}@localhost")
    return row is not None and row["name"] == f"{name}#EUW"


async def link(world: World, client: Client, name: str) -> None:
    await world.plugin("players").link(f"{name}@localhost", "steam", name)


async def is_linked(world: World, name: str) -> bool:
    return await world.plugin("players").links.get(f"{name}@localhost", "steam") is not None


async def mute(world: World, client: Client, name: str) -> None:
    await call(world, "moderation sanction", account=f"{name}@localhost", kind="mute", minutes=60)


async def is_muted(world: World, name: str) -> bool:
    return bool((await world.plugin("moderation").sanctions.scan(f"{name}@localhost")).rows)


async def report(world: World, client: Client, name: str) -> None:
    await call(world, "moderation report", reported=f"{name}@localhost", account=ALICE)


async def is_reported(world: World, name: str) -> bool:
    cases = await call(world, "moderation cases")
    return any(case["reported"] == f"{name}@localhost" for case in cases)


async def invite(world: World, client: Client, name: str) -> None:
    await call(world, "invite send", sender=ALICE, to=f"{name}@localhost", kind="match", target="m")


async def is_invited(world: World, name: str) -> bool:
    return bool((await world.plugin("invites").got.scan(f"{name}@localhost")).rows)


def whom(event: dict[str, Any]) -> str:
    """The name that an act was about."""
    return str(event["data"].get("to") or event["account"]).partition("@")[0]


ACTS: dict[str, tuple[str, Act, Look, tuple[str, ...]]] = {
    "ask": ("friend.requested", ask, is_asked, ("disco", "friends")),
    "name": ("player.named", rename, is_named, ("disco", "players")),
    "link": ("player.linked", link, is_linked, ("disco", "players")),
    "mute": ("sanction.imposed", mute, is_muted, ("disco", "moderation")),
    "report": ("report.queued", report, is_reported, ("disco", "moderation")),
    "invite": ("invite.made", invite, is_invited, ("invites",)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ACTS)
async def test_what_is_durable_is_told_after_a_kill_at_each_write(act: str) -> None:
    kind, do, look, plugins = ACTS[act]
    config = {name: about for name, about in KEYS.items() if name in plugins}
    if "invites" in plugins:
        config["invites"] = {**KEYS["invites"], "senders": "anybody", "pending": 100}
    await killed_at_each_write(kind, do, look, whom, *plugins, config=config)
