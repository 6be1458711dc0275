"""Rosters on a real store: what clients may set and see, versions, limits, requests."""

from collections.abc import Awaitable, Callable
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
import stores
from remembered import load, rosters_on

from xmppd import ns
from xmppd.core.roster import rosters as roster_module
from xmppd.core.roster.rosters import ROSTER, RemoveRequest, Roster, RosterItem, Rosters, SetRequest
from xmppd.core.roster.subscription import Kind, State
from xmppd.errors import StanzaError
from xmppd.store.table import Store

ALICE = "alice@localhost"
BOB = "bob@localhost"
CAROL = "carol@localhost"
KINDS: list[Kind] = ["subscribe", "unsubscribe", "subscribed", "unsubscribed"]


async def new_store() -> Store:
    store = stores.new_store()
    await store.open([ROSTER])
    return store


@pytest.fixture
def rosters(store: Store) -> Rosters:
    return rosters_on(store)


async def reload(store: Store, account: str = ALICE) -> Roster:
    return await load(rosters_on(store), account)


def query(inner: str) -> Element:
    return fromstring(f"<query xmlns='{ns.ROSTER}'>{inner}</query>")


def items_in(payload: bytes | None) -> list[dict[str, Any]]:
    """The items of a payload as a client reads them, sorted by jid."""
    assert payload is not None
    tree = fromstring(payload)
    assert tree.tag == f"{{{ns.ROSTER}}}query"
    found = [
        {**item.attrib, "groups": [group.text for group in item.findall(f"{{{ns.ROSTER}}}group")]}
        for item in tree
    ]
    return sorted(found, key=lambda item: item["jid"])


async def befriend(rosters: Rosters, account: str, contact: str) -> None:
    """The account's item ends in the state Both."""
    await rosters.outbound_subscription(account, contact, "subscribe")
    await rosters.inbound_subscription(account, contact, "subscribed")
    await rosters.inbound_subscription(account, contact, "subscribe")
    await rosters.outbound_subscription(account, contact, "subscribed")


# what a client may ask for


@pytest.mark.parametrize(
    ("inner", "condition", "type"),
    [
        ("", "bad-request", "modify"),
        ("<item jid='a@x'/><item jid='b@x'/>", "bad-request", "modify"),
        ("<item xmlns='urn:other' jid='a@x'/>", "bad-request", "modify"),
        ("<item name='nobody'/>", "bad-request", "modify"),
        ("<item jid='@@@'/>", "jid-malformed", "modify"),
        ("<item jid=''/>", "jid-malformed", "modify"),
        ("<item jid='a@x/phone'/>", "bad-request", "modify"),
        ("<item jid='a@x/phone' subscription='remove'/>", "bad-request", "modify"),
        (f"<item jid='{ALICE}'/>", "not-allowed", "cancel"),
        ("<item jid='a@x'><group>g</group><group>g</group></item>", "bad-request", "modify"),
        ("<item jid='a@x'><group/></item>", "not-acceptable", "modify"),
        (f"<item jid='a@x'><group>{'g' * 21}</group></item>", "not-acceptable", "modify"),
        (f"<item jid='a@x' name='{'ü' * 11}'/>", "not-acceptable", "modify"),
        (
            "<item jid='a@x'><group>1</group><group>2</group><group>3</group></item>",
            "not-acceptable",
            "modify",
        ),
    ],
)
@pytest.mark.asyncio
async def test_refused_set(store: Store, inner: str, condition: str, type: str) -> None:
    rosters = rosters_on(store, max_groups=2, max_name_bytes=20)
    with pytest.raises(StanzaError) as caught:
        rosters.parse_set(ALICE, query(inner))
    assert (caught.value.condition, caught.value.type) == (condition, type)


@pytest.mark.parametrize(
    ("inner", "request_"),
    [
        ("<item jid='a@x'/>", SetRequest("a@x", "", ())),
        ("<item jid='A@X' name='Ann'/>", SetRequest("a@x", "Ann", ())),
        ("<item jid='gateway.x'/>", SetRequest("gateway.x", "", ())),
        (
            f"<item jid='a@x' name='{'n' * 20}'><group>{'g' * 20}</group><group>h</group></item>",
            SetRequest("a@x", "n" * 20, ("g" * 20, "h")),
        ),
        ("<item jid='a@x' subscription='both' ask='subscribe' approved='true'/>", SetRequest("a@x", "", ())),
        ("<item jid='a@x' subscription='remove' name='x'><group/></item>", RemoveRequest("a@x")),
    ],
)
@pytest.mark.asyncio
async def test_accepted_set(store: Store, inner: str, request_: SetRequest | RemoveRequest) -> None:
    rosters = rosters_on(store, max_groups=2, max_name_bytes=20)
    assert rosters.parse_set(ALICE, query(inner)) == request_


# what a client sees


@pytest.mark.asyncio
async def test_empty_roster(rosters: Rosters) -> None:
    roster = await load(rosters)
    assert (roster.version, roster.followers, roster.following, roster.requests, roster.size) == (
        0,
        (),
        (),
        (),
        0,
    )
    assert rosters.result(roster, None) == b"<query xmlns='jabber:iq:roster' ver='0'></query>"


@pytest.mark.asyncio
async def test_item_as_it_is_sent(rosters: Rosters) -> None:
    change = await rosters.set_item(ALICE, SetRequest(BOB, "Bob & 'Co' <3", ("Friends", "a<b>&c")))
    item = (
        b"<item jid='bob@localhost' subscription='none' name='Bob &amp; &apos;Co&apos; &lt;3'>"
        b"<group>Friends</group><group>a&lt;b&gt;&amp;c</group></item>"
    )
    assert rosters.push(change) == b"<query xmlns='jabber:iq:roster' ver='1'>" + item + b"</query>"
    assert rosters.result(await load(rosters), "") == rosters.push(change)
    assert items_in(rosters.push(change)) == [
        {"jid": BOB, "subscription": "none", "name": "Bob & 'Co' <3", "groups": ["Friends", "a<b>&c"]}
    ]


@pytest.mark.asyncio
async def test_update_replaces_name_and_groups_only(rosters: Rosters, store: Store) -> None:
    await befriend(rosters, ALICE, BOB)
    await rosters.set_item(ALICE, SetRequest(CAROL, "", ()))
    await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ("one",)))
    change = await rosters.set_item(ALICE, SetRequest(BOB, "", ("two", "three")))
    assert change.is_visible
    for roster in (change.roster, await reload(store)):
        assert items_in(rosters.result(roster, None)) == [
            {"jid": BOB, "subscription": "both", "groups": ["two", "three"]},
            {"jid": CAROL, "subscription": "none", "groups": []},
        ]


@pytest.mark.asyncio
async def test_jids_that_begin_alike_are_told_apart(rosters: Rosters, store: Store) -> None:
    for contact in ("a@x", "a@x.y", "a@x.y.z", "x", "a&b'@x"):
        await rosters.set_item(ALICE, SetRequest(contact, contact, ()))
    await rosters.set_item(ALICE, SetRequest("a@x", "new", ()))
    change = await rosters.remove_item(ALICE, "a@x.y")
    for roster in (change.roster, await reload(store)):
        names = {item["jid"]: item["name"] for item in items_in(rosters.result(roster, None))}
        assert names == {"a@x": "new", "a@x.y.z": "a@x.y.z", "x": "x", "a&b'@x": "a&b'@x"}


@pytest.mark.asyncio
async def test_remove(rosters: Rosters, store: Store) -> None:
    await befriend(rosters, ALICE, BOB)
    change = await rosters.remove_item(ALICE, BOB)
    assert items_in(rosters.push(change)) == [{"jid": BOB, "subscription": "remove", "groups": []}]
    assert change.is_visible
    assert change.old is not None
    assert change.old.subscription == "both"
    assert await rosters.get_item(ALICE, BOB) is None
    for roster in (change.roster, await reload(store)):
        assert (roster.version, roster.followers, roster.following, roster.packed) == (
            change.version,
            (),
            (),
            b"",
        )


@pytest.mark.asyncio
async def test_remove_what_is_not_there(rosters: Rosters) -> None:
    await rosters.inbound_subscription(ALICE, CAROL, "subscribe")
    for contact in (BOB, CAROL):
        with pytest.raises(StanzaError) as caught:
            await rosters.remove_item(ALICE, contact)
        assert caught.value.condition == "item-not-found"


@pytest.mark.parametrize(
    ("state", "farewell"),
    [
        (State.NONE, ()),
        (State.NONE_OUT, ("unsubscribe",)),
        (State.NONE_IN, ("unsubscribed",)),
        (State.NONE_OUT_IN, ("unsubscribe", "unsubscribed")),
        (State.TO, ("unsubscribe",)),
        (State.TO_IN, ("unsubscribe", "unsubscribed")),
        (State.FROM, ("unsubscribed",)),
        (State.FROM_OUT, ("unsubscribe", "unsubscribed")),
        (State.BOTH, ("unsubscribe", "unsubscribed")),
    ],
)
def test_farewell(state: State, farewell: tuple[Kind, ...]) -> None:
    assert RosterItem(BOB).moved(state, approved=False).farewell == farewell


# versions (RFC 6121 2.6)


@pytest.mark.asyncio
async def test_versions(rosters: Rosters) -> None:
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    change = await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    roster = change.roster
    assert change.version == 2
    assert rosters.result(roster, "2") is None
    full = rosters.result(roster, None)
    assert full is not None
    for asked in ("", "1", "3", "02", " 2", "2.0", "½", "nonsense", "-1", "9" * 100):
        assert rosters.result(roster, asked) == full


@pytest.mark.asyncio
async def test_nothing_changed_nothing_written(rosters: Rosters, store: Store) -> None:
    first = await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ("g",)))
    again = await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ("g",)))
    assert not again.is_visible
    assert again.version == first.version == (await reload(store)).version
    assert again.roster is first.roster


@pytest.mark.asyncio
async def test_versions_never_come_back_after_an_account_did(store: Store) -> None:
    clock = [1000.0]
    rosters = Rosters(store, now=lambda: clock[0])
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    old = await rosters.set_item(ALICE, SetRequest(CAROL, "", ()))
    await rosters.remove_account(ALICE)
    gone = await load(rosters)
    assert gone.version == (await reload(store)).version > old.version
    assert (gone.size, await rosters.items(ALICE)) == (0, [])
    assert (await rosters.set_item(ALICE, SetRequest(BOB, "", ()))).version > gone.version


@pytest.mark.asyncio
async def test_the_emptied_roster_keeps_its_version(rosters: Rosters, store: Store) -> None:
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    await rosters.remove_item(ALICE, BOB)
    assert (await reload(store)).version == 2
    assert (await rosters_on(store).set_item(ALICE, SetRequest(BOB, "", ()))).version == 3


# limits


async def refused(attempt: Awaitable[Any]) -> str:
    with pytest.raises(StanzaError) as caught:
        await attempt
    return caught.value.condition


@pytest.mark.asyncio
async def test_a_full_roster_takes_changes_but_no_more_items(store: Store) -> None:
    rosters = rosters_on(store, max_items=2)
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    await rosters.outbound_subscription(ALICE, CAROL, "subscribe")
    dave = "dave@localhost"
    assert await refused(rosters.set_item(ALICE, SetRequest(dave, "", ()))) == "resource-constraint"
    assert await refused(rosters.outbound_subscription(ALICE, dave, "subscribe")) == "resource-constraint"
    assert await refused(rosters.outbound_subscription(ALICE, dave, "subscribed")) == "resource-constraint"
    await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    await rosters.inbound_subscription(ALICE, dave, "subscribe")  # a request is no item yet
    assert await refused(rosters.outbound_subscription(ALICE, dave, "subscribed")) == "resource-constraint"
    await rosters.remove_item(ALICE, BOB)
    change = (await rosters.outbound_subscription(ALICE, dave, "subscribed")).change
    assert change.roster.size == 2


@pytest.mark.asyncio
async def test_requests_do_not_grow_without_bound(store: Store) -> None:
    rosters = rosters_on(store, max_requests=3)
    for number in range(3):
        await rosters.inbound_subscription(ALICE, f"s{number}@x", "subscribe")
    assert await refused(rosters.inbound_subscription(ALICE, BOB, "subscribe")) == "resource-constraint"
    await rosters.inbound_subscription(ALICE, "s0@x", "subscribe")  # a repeat takes no room
    await rosters.set_item(ALICE, SetRequest("s0@x", "Sue", ()))
    await rosters.outbound_subscription(ALICE, "s0@x", "unsubscribed")
    await rosters.inbound_subscription(ALICE, BOB, "subscribe")
    assert [contact for contact, _ in (await load(rosters)).requests] == [BOB, "s1@x", "s2@x"]


@pytest.mark.asyncio
async def test_a_huge_request_is_refused(rosters: Rosters) -> None:
    assert (
        await refused(rosters.inbound_subscription(ALICE, BOB, "subscribe", b"x" * 10_001))
        == "policy-violation"
    )
    await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"x" * 10_000)
    assert (await load(rosters)).requests == ((BOB, b"x" * 10_000),)


@pytest.mark.parametrize("is_own", [True, False])
@pytest.mark.asyncio
async def test_items_that_come_and_go_are_bounded_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_own: bool
) -> None:
    """Each leaves a mark in Cassandra, and many marks make a roster unreadable there."""
    monkeypatch.setattr(roster_module, "OWN_A_DAY", 6)
    monkeypatch.setattr(roster_module, "OTHERS_A_DAY", 6)
    clock = [1000.0]
    rosters = Rosters(store, max_items=3, now=lambda: clock[0])

    async def come_and_go(number: int) -> None:
        contact = f"x{number}@x"
        if is_own:
            await rosters.set_item(ALICE, SetRequest(contact, "", ()), by=f"{ALICE}/phone")
            await rosters.remove_item(ALICE, contact)
        else:
            await rosters.inbound_subscription(ALICE, contact, "subscribe", by=f"{contact}/phone")
            await rosters.inbound_subscription(ALICE, contact, "unsubscribe")

    for number in range(6):
        await come_and_go(number)
    with pytest.raises(StanzaError, match="today") as refused:
        await come_and_go(7)
    assert (refused.value.condition, refused.value.type) == ("resource-constraint", "wait")
    assert await rosters.items(ALICE) == []
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()), by="admin")  # an operator moves rosters
    await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ()))  # what is there changes without limit
    clock[0] += 86_400
    await come_and_go(8)


# requests


@pytest.mark.asyncio
async def test_a_request_is_kept_but_not_shown(rosters: Rosters, store: Store) -> None:
    first = await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<nick/>")
    assert first.transition.deliver
    assert not first.change.is_visible
    again = await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<other/>")
    assert not again.transition.deliver
    assert again.change.version == first.change.version
    for roster in (again.change.roster, await reload(store)):
        assert roster.requests == ((BOB, b"<nick/>"),)
        assert items_in(rosters.result(roster, None)) == []


@pytest.mark.parametrize(("sender", "kind"), [("owner", "unsubscribed"), ("contact", "unsubscribe")])
@pytest.mark.asyncio
async def test_a_request_denied_or_withdrawn_leaves_nothing(
    rosters: Rosters, store: Store, sender: str, kind: Kind
) -> None:
    await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<nick/>")
    subscription = rosters.outbound_subscription if sender == "owner" else rosters.inbound_subscription
    change = (await subscription(ALICE, BOB, kind)).change
    assert not change.is_visible
    assert await rosters.get_item(ALICE, BOB) is None
    assert change.roster.requests == (await reload(store)).requests == ()


@pytest.mark.asyncio
async def test_a_request_granted_becomes_an_item(rosters: Rosters, store: Store) -> None:
    await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<nick/>")
    outcome = await rosters.outbound_subscription(ALICE, BOB, "subscribed")
    assert outcome.transition.route
    assert outcome.change.is_visible
    for roster in (outcome.change.roster, await reload(store)):
        assert (roster.followers, roster.following, roster.requests) == ((BOB,), (), ())
        assert roster.is_follower(BOB)
        assert not roster.is_following(BOB)
        assert not roster.is_follower(CAROL)
        assert items_in(rosters.result(roster, None)) == [{"jid": BOB, "subscription": "from", "groups": []}]
    assert await rosters.get_item(ALICE, BOB) == RosterItem(BOB, "from")


@pytest.mark.asyncio
async def test_an_item_stays_visible_when_its_contact_asks(rosters: Rosters, store: Store) -> None:
    await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    asked = await rosters.inbound_subscription(ALICE, BOB, "subscribe")
    assert not asked.change.is_visible
    denied = await rosters.outbound_subscription(ALICE, BOB, "unsubscribed")
    for roster in (asked.change.roster, denied.change.roster, await reload(store)):
        assert items_in(rosters.result(roster, None)) == [
            {"jid": BOB, "subscription": "none", "name": "Bob", "groups": []}
        ]


@pytest.mark.asyncio
async def test_naming_a_contact_that_asks_shows_it(rosters: Rosters) -> None:
    await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<nick/>")
    change = await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    assert change.is_visible
    assert change.roster.requests == ((BOB, b"<nick/>"),)
    assert items_in(rosters.push(change)) == [{"jid": BOB, "subscription": "none", "groups": []}]


@pytest.mark.asyncio
async def test_asking_shows_an_item(rosters: Rosters) -> None:
    outcome = await rosters.outbound_subscription(ALICE, BOB, "subscribe")
    assert outcome.transition.route
    assert items_in(rosters.push(outcome.change)) == [
        {"jid": BOB, "subscription": "none", "ask": "subscribe", "groups": []}
    ]
    again = await rosters.outbound_subscription(ALICE, BOB, "subscribe")
    assert again.transition.route
    assert again.change.version == outcome.change.version


@pytest.mark.asyncio
async def test_stanzas_that_mean_nothing_leave_no_item(rosters: Rosters) -> None:
    attempts: list[tuple[Callable[..., Awaitable[Any]], Kind]] = [
        (rosters.outbound_subscription, "unsubscribe"),
        (rosters.outbound_subscription, "unsubscribed"),
        (rosters.inbound_subscription, "unsubscribe"),
        (rosters.inbound_subscription, "subscribed"),
        (rosters.inbound_subscription, "unsubscribed"),
    ]
    for subscription, kind in attempts:
        assert (await subscription(ALICE, BOB, kind)).change.new is None
    assert (await load(rosters)).version == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.asyncio
async def test_nobody_subscribes_to_oneself(rosters: Rosters, kind: Kind) -> None:
    assert await refused(rosters.outbound_subscription(ALICE, ALICE, kind)) == "not-allowed"


@pytest.mark.asyncio
async def test_pre_approval(rosters: Rosters, store: Store) -> None:
    noted = await rosters.outbound_subscription(ALICE, BOB, "subscribed")
    assert not noted.transition.route
    assert items_in(rosters.push(noted.change)) == [
        {"jid": BOB, "subscription": "none", "approved": "true", "groups": []}
    ]
    assert (await reload(store)).packed == noted.change.roster.packed
    asked = await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<nick/>")
    assert (asked.transition.deliver, asked.transition.reply) == (False, "subscribed")
    assert (asked.change.roster.followers, asked.change.roster.requests) == ((BOB,), ())
    cancelled = await rosters.outbound_subscription(ALICE, BOB, "unsubscribed")
    assert cancelled.change.new == RosterItem(BOB)
    later = await rosters.inbound_subscription(ALICE, BOB, "subscribe")
    assert (later.transition.deliver, later.transition.reply) == (True, None)
