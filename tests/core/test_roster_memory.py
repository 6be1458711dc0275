"""Rosters that are in memory are changed without a read, and never by what is not so any more."""

import random
from dataclasses import replace
from typing import Any

import pytest
from remembered import load, rosters_on

from xmppd.core.roster.cache import UnknownItem, roster_of
from xmppd.core.roster.item import row_of
from xmppd.core.roster.rosters import RosterItem, SetRequest
from xmppd.core.roster.subscription import State
from xmppd.errors import StanzaError
from xmppd.store.table import Store

ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"


def read_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys of rows that are read from now on."""
    keys: list[Any] = []
    get = store.get

    async def noted(table: Any, key: Any) -> Any:
        keys.append(key)
        return await get(table, key)

    monkeypatch.setattr(store, "get", noted)
    return keys


def some_item(contact: str, chance: random.Random) -> RosterItem:
    def text() -> str:
        return "".join(chance.choice("ab<>&'\"\t\n\ré \x7f]") for _ in range(chance.randrange(7)))

    state = chance.choice(list(State))
    request = b"<presence>\xc3\xa9</presence>" if state.pending_in else b""
    if state is State.NONE_IN and chance.random() < 0.5:
        return RosterItem(contact, pending_in=True, request=request, hidden=True)
    groups = tuple(text() for _ in range(chance.randrange(3)))
    item = RosterItem(contact, state.subscription, state.ask, state.pending_in, request=request)
    return replace(item, approved=chance.random() < 0.3, name=text(), groups=groups)


@pytest.mark.parametrize("seed", range(100))
def test_an_item_in_memory_is_the_item_in_the_store(seed: int) -> None:
    chance = random.Random(seed)
    contacts = sorted(f"c{n}{chance.choice(['', '&', 'é<'])}@x" for n in range(chance.randrange(1, 300)))
    items = {contact: some_item(contact, chance) for contact in contacts}
    roster = roster_of(ALICE, 5, [row_of(items[contact]) for contact in contacts])
    assert [roster.item(contact) for contact in contacts] == list(items.values())
    for contact in chance.sample(contacts, min(20, len(contacts))):
        item = chance.choice([None, some_item(contact, chance)])
        roster = roster.changed(contact, item, 6)
        assert roster.item(contact) == item
    assert roster.item("c1") is roster.item("nobody@x") is None


def test_what_cannot_be_sent_is_not_known_from_memory() -> None:
    roster = roster_of(ALICE, 5, [row_of(RosterItem(BOB, name="\x01"))])
    with pytest.raises(UnknownItem):
        roster.item(BOB)


@pytest.mark.asyncio
async def test_a_roster_in_memory_is_changed_without_a_read(store: Store, monkeypatch: Any) -> None:
    rosters = rosters_on(store)
    await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ("x",)))
    read = read_rows(store, monkeypatch)
    await rosters.outbound_subscription(ALICE, BOB, "subscribe")
    await rosters.inbound_subscription(ALICE, CAROL, "subscribe", b"<presence/>")
    await rosters.outbound_subscription(ALICE, CAROL, "subscribed")
    assert read == []
    bob, carol = RosterItem(BOB, ask=True, name="Bob", groups=("x",)), RosterItem(CAROL, "from")
    assert await rosters.items(ALICE) == [bob, carol]
    await rosters.outbound_subscription(ALICE, BOB, "subscribe")  # nothing to do: is that so?
    assert len(read) == 1


@pytest.mark.asyncio
async def test_a_roster_that_was_changed_elsewhere_is_not_changed_by_memory(store: Store) -> None:
    """No notice came of it."""
    here, there = rosters_on(store), rosters_on(store)
    await here.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    await load(there)
    await there.set_item(ALICE, SetRequest(BOB, "Robert", ("work",)))
    await here.outbound_subscription(ALICE, BOB, "subscribe")
    assert await here.items(ALICE) == [RosterItem(BOB, ask=True, name="Robert", groups=("work",))]


@pytest.mark.asyncio
async def test_what_memory_refuses_or_holds_for_done_is_asked_of_the_store(store: Store) -> None:
    here, there = rosters_on(store), rosters_on(store)
    await load(here)
    await there.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    change = await here.remove_item(ALICE, BOB)  # in memory there is none
    assert change.old is not None
    await there.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    await there.remove_item(ALICE, BOB)
    with pytest.raises(StanzaError):
        await here.remove_item(ALICE, BOB)
    await here.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    await there.set_item(ALICE, SetRequest(BOB, "Robert", ()))
    await here.set_item(ALICE, SetRequest(BOB, "Bob", ()))  # which it is, in memory
    assert [item.name for item in await there.items(ALICE)] == ["Bob"]
