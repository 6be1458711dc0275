"""Web hooks: what is durable of games is told, at whatever write the process was killed that did it."""

from collections.abc import Mapping
from typing import Any

import pytest
from gametokens import issuer
from hookkills import Act, Look, killed_at_each_write
from inviting import KEY

from xmppd.testing import Client, World

pytestmark = pytest.mark.one_node

ALICE = "alice@localhost"
CONFIG: Mapping[str, Mapping[str, Any]] = {
    "invites": {"message": "", "key": KEY, "senders": "anybody", "pending": 100},
    "game_login": {"issuers": [issuer()]},
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


async def accept(world: World, client: Client, name: str) -> None:
    await call(world, "friend accept", one=ALICE, other=f"{name}@localhost")


async def be_asked(world: World, client: Client, name: str) -> None:
    await call(world, "friend request", one=f"{name}@localhost", other=ALICE)


async def are_friends(world: World, name: str) -> bool:
    return bool(await world.plugin("friends").are_friends(ALICE, f"{name}@localhost"))


async def befriend(world: World, client: Client, name: str) -> None:
    await call(world, "friend befriend", one=ALICE, other=f"{name}@localhost")


async def part(world: World, client: Client, name: str) -> None:
    await world.plugin("friends").end(ALICE, f"{name}@localhost")


async def are_apart(world: World, name: str) -> bool:
    return not await are_friends(world, name)


async def sanction_of(world: World, name: str) -> Mapping[str, Any]:
    [row] = (await world.plugin("moderation").sanctions.scan(f"{name}@localhost")).rows
    return dict(row)


async def lift(world: World, client: Client, name: str) -> None:
    id = (await sanction_of(world, name))["id"]
    await call(world, "moderation lift", account=f"{name}@localhost", id=id)


async def is_lifted(world: World, name: str) -> bool:
    return (await sanction_of(world, name))["lifted"] is not None


async def case_of(world: World, name: str) -> Mapping[str, Any]:
    found = await call(world, "moderation cases", state="all", reported=f"{name}@localhost")
    return dict(found[0])


async def claim(world: World, client: Client, name: str) -> None:
    await call(world, "moderation claim", id=(await case_of(world, name))["id"], moderator="mona")


async def is_claimed(world: World, name: str) -> bool:
    return bool((await case_of(world, name))["state"] == "claimed")


async def decide(world: World, client: Client, name: str) -> None:
    id = (await case_of(world, name))["id"]
    await call(world, "moderation decide", id=id, verdict="upheld", sanction="mute", minutes=5)


async def is_decided(world: World, name: str) -> bool:
    return bool((await case_of(world, name))["state"] == "decided")


async def revoke(world: World, client: Client, name: str) -> None:
    await call(world, "game-login revoke", account=f"{name}@localhost")


async def is_revoked(world: World, name: str) -> bool:
    return await world.plugin("game_login").ended.get(f"{name}@localhost") is not None


async def cancel(world: World, client: Client, name: str) -> None:
    [row] = (await world.plugin("invites").got.scan(f"{name}@localhost")).rows
    await call(world, "invite cancel", to=f"{name}@localhost", id=row["id"])


async def is_cancelled(world: World, name: str) -> bool:
    [row] = (await world.plugin("invites").got.scan(f"{name}@localhost")).rows
    return bool(row["state"] == "cancelled")


def whom(event: dict[str, Any]) -> str:
    """The name that an act was about."""
    return str(event["data"].get("to") or event["account"]).partition("@")[0]


ACTS: dict[str, tuple[str, Act | None, Act, Look, tuple[str, ...]]] = {
    "ask": ("friend.requested", None, ask, is_asked, ("disco", "friends")),
    "accept": ("friend.made", be_asked, accept, are_friends, ("disco", "friends")),
    "part": ("friend.ended", befriend, part, are_apart, ("disco", "friends")),
    "name": ("player.named", None, rename, is_named, ("disco", "players")),
    "link": ("player.linked", None, link, is_linked, ("disco", "players")),
    "mute": ("sanction.imposed", None, mute, is_muted, ("disco", "moderation")),
    "lift": ("sanction.lifted", mute, lift, is_lifted, ("disco", "moderation")),
    "report": ("report.queued", None, report, is_reported, ("disco", "moderation")),
    "claim": ("report.claimed", report, claim, is_claimed, ("disco", "moderation")),
    "decide": ("report.decided", report, decide, is_decided, ("disco", "moderation")),
    "revoke": ("game-login.revoked", None, revoke, is_revoked, ("game_login",)),
    "invite": ("invite.made", None, invite, is_invited, ("invites",)),
    "cancel": ("invite.settled", invite, cancel, is_cancelled, ("invites",)),
}
"""What is told, what has to be done before, what is done, and whether it is there then."""


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ACTS)
async def test_what_is_durable_is_told_after_a_kill_at_each_write(act: str) -> None:
    kind, before, do, look, plugins = ACTS[act]
    config = {name: about for name, about in CONFIG.items() if name in plugins}
    await killed_at_each_write(kind, do, look, whom, *plugins, config=config, before=before)
