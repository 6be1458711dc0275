"""Accounts that come from another server, in tests of what becomes of them."""

from collections.abc import Mapping
from typing import Any

from xmppd.core.accounts import derive
from xmppd.core.arrival import Arrival, Terms
from xmppd.core.digest import digest
from xmppd.core.roster.item import RosterItem, value_of
from xmppd.core.roster.subscription import State
from xmppd.migrate.merge import item_of
from xmppd.testing import World

PLUGINS = ("vcard", "private", "offline", "last")
DORA, ALICE, BOB = (f"{name}@localhost" for name in ("dora", "alice", "bob"))
RUN = Terms("run1")
CARD = "<vCard xmlns='vcard-temp'><FN>Dora</FN></vCard>"
MESSAGE = "<message from='x@elsewhere' to='dora@localhost'><body>hello</body></message>"
BLOCKED = ["evil.example", "spam@evil.example"]


def item(contact: str, state: State = State.BOTH, **more: Any) -> RosterItem:
    return item_of(contact, state, **more)


def roster(*items: RosterItem) -> list[list[str]]:
    return [[it.contact, value_of(it)] for it in items]


def arrival(account: str = DORA, *, password: str = "secret", **parts: Any) -> Arrival:
    hashes = {kind: digest(value) for kind, value in parts.items()} | {"keys": digest(password)}
    return Arrival(account, derive(password, b"salt", 4096), False, 1000.0, parts, hashes)


EVERYTHING: Mapping[str, Any] = {
    "roster": roster(item(ALICE, name="Alice", groups=["Friends"])),
    "vcard": CARD,
    "private": {"{urn:x}x": "<x xmlns='urn:x'/>"},
    "offline": [[MESSAGE, 900.0], [MESSAGE.replace("hello", "again"), 901.5]],
    "blocks": BLOCKED,
    "last": 950.0,
}


async def everything(world: World, account: str) -> dict[str, Any]:
    return await world.app.arrivals.give_all(account)


async def held(world: World, account: str, contact: str) -> RosterItem | None:
    return await world.app.rosters.get_item(account, contact)
