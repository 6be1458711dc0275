"""Web hooks: what is durable is told, at whatever write the process was killed that did it."""

from typing import Any

import pytest
from hookkills import Act, Look, killed_at_each_write

from xmppd import ns
from xmppd.core.credentials import ACCOUNT
from xmppd.testing import Client, World


async def create(world: World, client: Client, name: str) -> None:
    await world.app.accounts.provision(f"{name}@localhost")


async def is_there(world: World, name: str) -> bool:
    return await world.app.store.get(ACCOUNT, (f"{name}@localhost",)) is not None


async def disable(world: World, client: Client, name: str) -> None:
    await world.app.accounts.disable(f"{name}@localhost")


async def is_disabled(world: World, name: str) -> bool:
    return (await world.app.accounts.info(f"{name}@localhost")).disabled


async def know(world: World, client: Client, name: str) -> None:
    query = f"<query xmlns='{ns.ROSTER}'><item jid='{name}@localhost' name='x'/></query>"
    await client.send(f"<iq type='set' id='{name}'>{query}</iq>")


async def is_known(world: World, name: str) -> bool:
    return await world.app.rosters.get_item("alice@localhost", f"{name}@localhost") is not None


async def report(world: World, client: Client, name: str) -> None:
    await client.send(
        f"<iq type='set' id='{name}'><block xmlns='{ns.BLOCKING}'><item jid='{name}@localhost'>"
        f"<report xmlns='{ns.REPORTING}' reason='{ns.REPORTING_SPAM}'/></item></block></iq>"
    )


async def is_blocked(world: World, name: str) -> bool:
    return f"{name}@localhost" in await world.app.blocking.of("alice@localhost")


async def write(world: World, client: Client, name: str) -> None:
    await client.send(f"<message to='bob@localhost' id='{name}' type='chat'><body>{name}</body></message>")


async def is_kept(world: World, name: str) -> bool:
    rows = (await world.plugin("offline").queue.scan("bob@localhost")).rows
    return any(f"id='{name}'".encode() in row["stanza"] for row in rows)


def whom(event: dict[str, Any]) -> str:
    """The name that an act was about."""
    data = event["data"]
    name = data.get("contact") or data.get("reported") or data.get("id") or event["account"]
    return str(name).partition("@")[0]


ACTS: dict[str, tuple[str, Act, Look, tuple[str, ...]]] = {
    "created": ("account.created", create, is_there, ()),
    "disabled": ("account.changed", disable, is_disabled, ()),
    "roster": ("roster.changed", know, is_known, ()),
    "report": ("report.made", report, is_blocked, ("blocking",)),
    "message": ("message.routed", write, is_kept, ("offline",)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ACTS)
async def test_what_is_durable_is_told_after_a_kill_at_each_write(act: str) -> None:
    kind, do, look, plugins = ACTS[act]
    await killed_at_each_write(kind, do, look, whom, *plugins, is_unsure=act == "message")
