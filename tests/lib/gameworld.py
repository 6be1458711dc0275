"""Worlds with all plugins of games, and what their clients can be asked for."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from gametokens import issuer

from xmppd import ns
from xmppd.admin.commands import Caller
from xmppd.testing import Client, World

USUAL = ("disco", "ping", "version", "time", "last", "vcard", "private", "blocking", "privacy", "offline")
GAMES = (
    "game_login",
    "players",
    "friends",
    "rich_presence",
    "invites",
    "moderation",
    "game_events",
    "riot_profile",
)
PLUGINS = (*USUAL, "carbons", "archive", *GAMES)
SAYS = {"chess": {"name": "Chess", "status": "{mode}", "says": {"properties": {"mode": {"type": "string"}}}}}
VERBS = ("message", "presence", "request", "invite", "iq", "report")
UNBOUND = {verb: {"per_second": 0.0} for verb in VERBS}
"""No limit on what clients do."""
KEY = "a key for tests, of 32 characters"


def everything(*, without: tuple[str, ...] = (), nodes: int | None = None, **config: Any) -> World:
    """A world with all of it, in which nothing comes too often; `config` by plugin, beside the usual one."""
    usual: dict[str, dict[str, Any]] = {
        "game_login": {"issuers": [issuer()], "without_tls": True},
        "riot_profile": {"without_tls": True},
        "players": {"lookups": 1_000_000, "rename_days": 0},
        "rich_presence": {"games": SAYS, "window": 0.0, "changes_per_minute": 10_000_000},
        "invites": {"message": "", "key": KEY, "senders": "anybody", "per_minute": 1_000_000},
        "moderation": {"rates": UNBOUND},
    }
    given = {name: {**usual.get(name, {}), **config.get(name, {})} for name in (*usual, *config)}
    plugins = tuple(name for name in PLUGINS if name not in without)
    return World(
        accounts=("alice", "bob", "carol", "dora"),
        plugins=plugins,
        plugin_config={name: it for name, it in given.items() if name in plugins},
        nodes=nodes,
    )


async def call(world: World, command: str, node: int = 0, **arguments: Any) -> Any:
    """What a back end does."""
    found = await world.apps[node].commands.call(command, arguments, Caller("http", "backend"))
    await world.settle()
    return found


async def answer_to(client: Client, kind: str, payload: str, to: str = "") -> Element:
    """The answer to an iq; what comes before it, or after, is forgotten."""
    await client.receive_all()
    await client.send(f"<iq type='{kind}' id='q'{f' to={to!r}' if to else ''}>{payload}</iq>")
    (answer,) = [it for it in await client.receive_all() if it.get("id") == "q"]
    return answer


async def greets(one: Client, other: Client) -> bool:
    """Whether two others go on chatting."""
    await other.receive_all()
    await one.send(f"<message to='{other.jid}' type='chat'><body>canary</body></message>")
    bodies = [it.findtext(f"{{{ns.CLIENT}}}body") for it in await other.receive_all()]
    return bodies == ["canary"]
