"""`roster` commands in a running server: what is changed reaches sessions, the contact and the log."""

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress
from itertools import permutations
from typing import Any

import pytest

from xmppd.core.roster.item import ROSTER as TABLE
from xmppd.core.roster.item import row_of
from xmppd.core.roster.rosters import RosterItem
from xmppd.core.roster.subscription import Kind
from xmppd.errors import CommandError, StanzaError
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Put
from xmppd.testing import Client, World

ROSTER = "jabber:iq:roster"
ALICE, BOB, CAROL = (f"{name}@localhost" for name in ("alice", "bob", "carol"))


async def run(world: World, name: str, /, **arguments: Any) -> Any:
    """One command as a door calls it."""
    return await world.app.commands.call(f"roster {name}", arguments)


async def set_item(client: Client, contact: str, more: str) -> None:
    item = f"<item jid='{contact}' {more}"
    await client.send(f"<iq type='set' id='s'><query xmlns='{ROSTER}'>{item}</query></iq>")
    await client.receive_all()


async def item(world: World, account: str, contact: str) -> RosterItem | None:
    return await world.app.rosters.get_item(account, contact)


async def pair(world: World) -> list[str]:
    """How the items of alice and bob about each other stand."""
    found = [await item(world, ALICE, BOB), await item(world, BOB, ALICE)]
    return [
        "-"
        if i is None
        else i.subscription + (" ask" if i.ask else "") + (" pending" if i.pending_in else "")
        for i in found
    ]


async def last_version(world: World, account: str) -> int:
    return (await world.app.rosters.log(account))[-1].version


async def lay(world: World, account: str, *items: RosterItem) -> None:
    """Put items into a roster behind the server's back, as a cut would leave them."""
    roster = world.app.rosters.load(account)
    roster = await roster if isinstance(roster, Awaitable) else roster
    newer = {"version": roster.version + 1}
    await world.app.store.batch(TABLE, (account,), [Put(row_of(i)) for i in items], static=newer)
    world.app.rosters.forget(account)


# show, log, add, remove


@pytest.mark.asyncio
async def test_show_and_log_say_what_is_there_and_why() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await set_item(alice, BOB, "name='Bob'><group>Friends</group></item>")
        await bob.send(f"<presence type='subscribe' to='{ALICE}'/>")
        assert await run(world, "show", account=ALICE) == [
            {
                "contact": BOB,
                "subscription": "none",
                "ask": False,
                "pending": True,
                "approved": False,
                "name": "Bob",
                "groups": ["Friends"],
            }
        ]
        lines = await run(world, "log", account=ALICE, contact=BOB)
        assert [(line["by"], line["what"], line["before"], line["after"]) for line in lines] == [
            (alice.jid, "set", "", "none 'Bob' [Friends]"),
            (bob.jid, "received subscribe", "none 'Bob' [Friends]", "none pending 'Bob' [Friends]"),
        ]
        assert lines[0]["at"].endswith("Z")
        assert await run(world, "log", account=ALICE, contact=CAROL) == []
        assert await run(world, "log", account=ALICE, limit=1) == lines[1:]


@pytest.mark.asyncio
async def test_add_and_remove_are_pushed() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await run(world, "add", account=ALICE, contact=BOB, name="Bobby", group=["G"])
        await alice.expect(
            f"<iq type='set' id='*' to='{alice.jid}'><query xmlns='{ROSTER}' ver='*'>"
            f"<item jid='{BOB}' name='Bobby' subscription='none'><group>G</group></item></query></iq>"
        )
        await world.befriend(alice, bob)
        await run(world, "remove", account=ALICE, contact=BOB)
        assert await pair(world) == ["-", "none"]
        kinds = [stanza.get("type") for stanza in await alice.receive_all()]
        assert "set" in kinds
        assert {"unsubscribe", "unsubscribed"} <= {stanza.get("type") for stanza in await bob.receive_all()}
        assert (await world.app.rosters.log(BOB))[-1].by == "admin"


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("show", {"account": "nobody@localhost"}, "no account"),
        ("log", {"account": "nobody@localhost"}, "no account"),
        ("log", {"account": ALICE, "limit": 0}, "limit"),
        ("remove", {"account": ALICE, "contact": BOB}, "not in the roster"),
        ("add", {"account": ALICE, "contact": ALICE}, "their own"),
        ("add", {"account": ALICE, "contact": BOB, "name": "a\x1fb"}, "control"),
        ("undo", {"account": ALICE, "version": 7}, "no change 7"),
        ("check", {}, "--all"),
        ("check", {"account": ALICE, "all": True}, "--all"),
        ("check", {"all": True, "rate": -1}, "rate"),
        ("check", {"all": True, "after": "%"}, "token"),
        ("repair", {"account": "nobody@localhost"}, "no account"),
    ],
)
@pytest.mark.asyncio
async def test_what_cannot_be_done_is_said(name: str, arguments: dict[str, Any], why: str) -> None:
    async with World() as world:
        with pytest.raises(CommandError, match=why):
            await run(world, name, **arguments)


# undo


@pytest.mark.asyncio
async def test_a_removed_friend_comes_back_on_both_sides() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await set_item(alice, BOB, "name='Bob'><group>Friends</group></item>")
        await world.befriend(alice, bob)
        before = [await item(world, ALICE, BOB), await item(world, BOB, ALICE)]
        await set_item(alice, BOB, "subscription='remove'/>")
        await bob.receive_all()
        await run(world, "undo", account=ALICE, version=await last_version(world, ALICE))
        assert [await item(world, ALICE, BOB), await item(world, BOB, ALICE)] == before
        pushes = [stanza for stanza in await alice.receive_all() if stanza.get("type") == "set"]
        last = pushes[-1][0][0]
        assert (last.get("subscription"), last.get("name"), len(last)) == ("both", "Bob", 1)
        assert (await run(world, "check", account=ALICE))["rows"] == []


@pytest.mark.asyncio
async def test_an_added_contact_goes() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await set_item(alice, BOB, "/>")
        await run(world, "undo", account=ALICE, version=await last_version(world, ALICE))
        assert await pair(world) == ["-", "-"]
        await alice.expect(
            f"<iq type='set' id='*' to='{alice.jid}'><query xmlns='{ROSTER}' ver='*'>"
            f"<item jid='{BOB}' subscription='remove'/></query></iq>"
        )


@pytest.mark.asyncio
async def test_a_new_name_goes_and_the_subscription_stays() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await set_item(alice, BOB, "name='Bob'/>")
        await set_item(alice, BOB, "name='Rob'><group>x</group></item>")
        version = await last_version(world, ALICE)
        await world.befriend(alice, bob)
        # As it was before that change: no friends yet.
        await run(world, "undo", account=ALICE, version=version)
        assert await item(world, ALICE, BOB) == RosterItem(BOB, name="Bob")
        assert await pair(world) == ["none", "none"]
        assert (await run(world, "check", account=BOB))["rows"] == []


@pytest.mark.asyncio
async def test_what_the_contact_ended_is_undone_there() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await bob.send(f"<presence type='unsubscribed' to='{ALICE}'/>")
        with pytest.raises(CommandError, match="bob@localhost decided that"):
            await run(world, "undo", account=ALICE, version=await last_version(world, ALICE))
        await run(world, "undo", account=BOB, version=await last_version(world, BOB))
        assert await pair(world) == ["both", "both"]


@pytest.mark.asyncio
async def test_a_refused_request_waits_again() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send(f"<presence type='subscribe' to='{ALICE}'><status>me</status></presence>")
        await alice.send(f"<presence type='unsubscribed' to='{BOB}'/>")
        assert await pair(world) == ["-", "none"]
        await run(world, "undo", account=ALICE, version=await last_version(world, ALICE))
        assert await pair(world) == ["none pending", "none ask"]
        found = await item(world, ALICE, BOB)
        assert found is not None
        assert (found.hidden, b"me" in found.request) == (True, True)


@pytest.mark.asyncio
async def test_undo_without_the_contacts_account() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await set_item(alice, BOB, "subscription='remove'/>")
        version = await last_version(world, ALICE)
        await world.app.server.remove_account(BOB)
        with pytest.raises(CommandError, match="no account bob"):
            await run(world, "undo", account=ALICE, version=version)


KINDS: tuple[Kind, ...] = ("subscribe", "subscribed", "unsubscribe", "unsubscribed")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.asyncio
async def test_every_own_change_can_be_undone(seed: int) -> None:
    chance = random.Random(seed)
    async with World() as world:
        for _ in range(chance.randrange(1, 8)):
            account, contact = chance.choice([(ALICE, BOB), (BOB, ALICE)])
            before = await item(world, account, contact)
            old_version = await version_of(world, account)
            await world.app.contacts.send(account, contact, chance.choice(KINDS), by=account)
        entries = await world.app.rosters.log(account, after=old_version)
        if not entries or entries[0].what.startswith("received"):
            return
        other = await pair(world)
        try:
            await run(world, "undo", account=account, version=entries[0].version)
        except CommandError:
            assert other == await pair(world)
        else:
            assert await item(world, account, contact) == before
        for name in (ALICE, BOB):
            assert (await run(world, "check", account=name))["rows"] == []


async def version_of(world: World, account: str) -> int:
    entries = await world.app.rosters.log(account)
    return entries[-1].version if entries else 0


# check and repair

MISMATCHES = [
    # alice's half, bob's half, and how both stand after the repair
    (None, RosterItem(ALICE, pending_in=True, hidden=True), ["-", "-"]),
    (None, RosterItem(ALICE, "from"), ["-", "none"]),
    (RosterItem(BOB, "from"), RosterItem(ALICE, "both"), ["from", "to"]),
    (RosterItem(BOB, ask=True), None, ["none ask", "none pending"]),
    (RosterItem(BOB, ask=True), RosterItem(ALICE, "from"), ["to", "from"]),
    (RosterItem(BOB, ask=True), RosterItem(ALICE, approved=True), ["to", "from"]),
    (RosterItem(BOB, "to"), None, ["none", "-"]),
    (RosterItem(BOB, "both"), RosterItem(ALICE, "to", pending_in=True), ["from ask", "to pending"]),
    (RosterItem(BOB, "both"), None, ["none", "-"]),
    (RosterItem(BOB, "both"), RosterItem(ALICE, ask=True), ["from", "to"]),
]


@pytest.mark.parametrize("where", [ALICE, BOB, "all"])
@pytest.mark.parametrize(("ours", "theirs", "after"), MISMATCHES)
@pytest.mark.asyncio
async def test_every_mismatch_is_found_and_mended(
    where: str, ours: RosterItem | None, theirs: RosterItem | None, after: list[str]
) -> None:
    async with World() as world:
        await lay(world, ALICE, *filter(None, [ours]))
        await lay(world, BOB, *filter(None, [theirs]))
        before = await pair(world)
        arguments = {"all": True, "rate": 0} if where == "all" else {"account": where}
        found = await run(world, "check", **arguments)
        has_it = where == "all" or (ours if where == ALICE else theirs) is not None
        assert bool(found["rows"]) == has_it
        assert found["exit_code"] == int(has_it)
        dry = await run(world, "repair", dry_run=True, **arguments)
        assert dry == found
        assert await pair(world) == before
        mended = await run(world, "repair", **arguments)
        if has_it:
            assert {row["mended"] for row in mended["rows"]} == {"yes"}
            assert mended["exit_code"] == 0
            assert await pair(world) == after
            assert (await run(world, "check", all=True, rate=0))["rows"] == []


@pytest.mark.asyncio
async def test_a_contact_without_an_account_keeps_its_name_only() -> None:
    async with World() as world:
        alice = await world.login("alice")
        ghost = "ghost@localhost"
        await lay(world, ALICE, RosterItem(ghost, "both", name="G"), RosterItem("far@example.org", "to"))
        rows = (await run(world, "repair", account=ALICE))["rows"]
        assert [(row["contact"], row["mended"]) for row in rows] == [(ghost, "yes")]
        assert await item(world, ALICE, ghost) == RosterItem(ghost, name="G")
        assert any(stanza.tag.endswith("iq") for stanza in await alice.receive_all())
        assert await item(world, ALICE, "far@example.org") == RosterItem("far@example.org", "to")


@pytest.mark.asyncio
async def test_the_log_tells_a_refused_request_from_one_that_was_lost() -> None:
    async with World() as world:
        rosters = world.app.rosters
        for client in (ALICE, CAROL):
            await world.app.contacts.send(client, BOB, "subscribe", by=client)
            world.clock.seconds += 1
        await rosters.outbound_subscription(BOB, ALICE, "unsubscribed")  # cut before alice's half
        await rosters.outbound_subscription(BOB, CAROL, "unsubscribed")
        await rosters.inbound_subscription(CAROL, BOB, "unsubscribed")
        world.clock.seconds += 1
        await rosters.outbound_subscription(CAROL, BOB, "subscribe")  # asks once more, cut
        await run(world, "repair", all=True, rate=0)
        assert await item(world, ALICE, BOB) == RosterItem(BOB)
        assert await item(world, CAROL, BOB) == RosterItem(BOB, ask=True)
        asked = await item(world, BOB, CAROL)
        assert asked is not None and asked.pending_in and asked.hidden


@pytest.mark.asyncio
async def test_a_removed_contact_is_found_by_the_log() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await world.app.rosters.remove_item(ALICE, BOB)  # without a word to bob
        assert len((await run(world, "check", account=ALICE))["rows"]) == 2
        await run(world, "repair", account=ALICE)
        assert await pair(world) == ["-", "none"]


@pytest.mark.asyncio
async def test_a_full_roster_is_reported_and_not_mended() -> None:
    async with World() as world:
        await lay(world, BOB, *(RosterItem(f"s{n}@localhost", pending_in=True) for n in range(200)))
        await lay(world, ALICE, RosterItem(BOB, ask=True))
        found = await run(world, "repair", account=ALICE)
        assert found["rows"][0]["mended"].startswith("no: resource-constraint")
        assert found["exit_code"] == 1


@pytest.mark.asyncio
async def test_a_run_over_all_accounts_goes_in_slices() -> None:
    async with World(accounts=tuple(f"user{n}" for n in range(250))) as world:
        await lay(world, "user249@localhost", RosterItem("user7@localhost", "to"))
        pages, after = [], ""
        while True:
            page = await run(world, "check", all=True, rate=0, after=after)
            pages.append(page)
            after = page["after"]
            if after is None:
                break
        assert [page["counts"]["accounts"] for page in pages] == [100, 100, 50]
        assert [page["total"] for page in pages] == [250, None, None]
        assert sum(page["counts"]["faults"] for page in pages) == 1


@pytest.mark.asyncio
async def test_the_rate_is_kept() -> None:
    async with World() as world:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        page = await run(world, "check", all=True, rate=20)
        assert page["counts"]["accounts"] == 3
        assert loop.time() - begun >= 0.14


class Cut(SqliteStore):
    """A store that dies at some write: that one and all later ones are lost."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.left = -1

    async def batch(self, *args: Any, **options: Any) -> bool:
        if self.left == 0:
            raise KilledError
        self.left -= 1
        return await super().batch(*args, **options)


class KilledError(Exception):
    """The end of the process."""


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.asyncio
async def test_after_random_cuts_and_a_repair_every_pair_is_whole(seed: int) -> None:
    chance = random.Random(seed)
    store = Cut()
    async with World(store=store) as world:
        rosters, contacts = world.app.rosters, world.app.contacts
        for _ in range(chance.randrange(5, 40)):
            account, contact = chance.sample([ALICE, BOB, CAROL], 2)
            store.left = chance.choice([0, 1, 1, 1, 2, -1, -1])
            with suppress(KilledError, StanzaError):  # item-not-found of a hidden one
                if chance.random() < 0.2:
                    await contacts.remove_item(account, contact, account)
                else:
                    await contacts.send(account, contact, chance.choice(KINDS), by=account)
            for name in (ALICE, BOB, CAROL):
                rosters.forget(name)
        store.left = -1
        granted = {
            (account, contact)
            for account, contact in permutations((ALICE, BOB, CAROL), 2)
            if (i := await item(world, account, contact)) and i.state.is_followed
        }
        await run(world, "repair", all=True, rate=0)
        page = await run(world, "check", all=True, rate=0)
        assert (page["rows"], page["exit_code"]) == ([], 0)
        for account, contact in permutations((ALICE, BOB, CAROL), 2):
            ours, theirs = await item(world, account, contact), await item(world, contact, account)
            follows = ours is not None and ours.state.is_following
            assert follows == (theirs is not None and theirs.state.is_followed)
            asks = ours is not None and ours.ask
            assert asks == (theirs is not None and theirs.state.pending_in)
            was_approved = theirs is not None and theirs.approved
            assert not follows or (contact, account) in granted or was_approved  # nobody gains access


@pytest.mark.asyncio
async def test_add_changes_what_is_given_and_nothing_else() -> None:
    async with World() as world:
        assert await run(world, "add", account=ALICE, contact=BOB, name="Bob", group=["a", "b"]) == {
            "account": ALICE,
            "added": BOB,
            "item": "none 'Bob' [a, b]",
        }
        for arguments, done, shown in (
            ({}, "unchanged", "none 'Bob' [a, b]"),
            ({"name": "Bobby"}, "changed", "none 'Bobby' [a, b]"),
            ({"name": "Bobby"}, "unchanged", "none 'Bobby' [a, b]"),
            ({"group": ["c", "c"]}, "changed", "none 'Bobby' [c]"),
            ({"group": [""]}, "changed", "none 'Bobby'"),
            ({"name": ""}, "changed", "none"),
        ):
            answer = await run(world, "add", account=ALICE, contact=BOB, **arguments)
            assert answer == {"account": ALICE, done: BOB, "item": shown}


@pytest.mark.asyncio
async def test_add_keeps_subscriptions_and_a_request_that_waits() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        answer = await run(world, "add", account=ALICE, contact=BOB, group=["Friends"])
        assert answer["item"] == "both [Friends]"
        await lay(world, ALICE, RosterItem(CAROL, pending_in=True, hidden=True))
        world.app.rosters.forget(ALICE)
        answer = await run(world, "add", account=ALICE, contact=CAROL)
        assert answer == {"account": ALICE, "added": CAROL, "item": "none pending"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"contact": f"{BOB}/phone"}, "is the address of one session: a contact is bob@localhost"),
        ({"contact": ALICE}, "nobody is a contact of their own"),
        ({"contact": BOB, "name": "a\x07"}, "control"),
        ({"contact": BOB, "name": "a\ufffe"}, "control"),
        ({"contact": BOB, "group": list("abcdefghijk")}, "More than 10 groups"),
        ({"contact": BOB, "name": "x" * 1024}, "longer than 1023 bytes"),
        ({"contact": BOB, "group": "a"}, "group must be a list"),
    ],
)
async def test_add_refuses_what_no_client_could_set(arguments: dict[str, Any], sentence: str) -> None:
    async with World() as world:
        with pytest.raises(CommandError, match=sentence):
            await run(world, "add", account=ALICE, **arguments)
        assert await world.app.rosters.items(ALICE) == []
