"""Rosters as plugins read and change them, and the hooks that tell of them."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from xmppd.core.accounts import AccountUnknown
from xmppd.errors import StanzaError
from xmppd.store.sqlite.store import SqliteStore
from xmppd.testing import Client, World, refusal

ALICE, BOB = "alice@localhost", "bob@localhost"

WATCH = """
from xmppd import hooks
from xmppd.plugin import Plugin, StanzaError

class Watch(Plugin):
    async def start(self):
        self.changes = []
        self.refused = set()

    @hooks.roster_changed
    async def changed(self, account, change):
        self.changes.append((account, change.contact, change.old and change.old.subscription,
                             change.new and change.new.subscription))

    @hooks.subscription
    async def permit(self, account, contact, kind):
        if account in self.refused or contact in self.refused:
            raise StanzaError("not-allowed", "Not these two.")
"""


def watched(tmp_path: Path, **more: Any) -> World:
    (tmp_path / "watch.py").write_text(WATCH)
    return World(plugins=("watch",), plugin_folders=(tmp_path,), **more)


async def subscriptions(world: World) -> tuple[str | None, str | None]:
    rosters = world.app.server.rosters
    mine, theirs = await rosters.item(ALICE, BOB), await rosters.item(BOB, ALICE)
    return mine and mine.subscription, theirs and theirs.subscription


def shown(stanzas: list[Any]) -> list[tuple[str | None, str | None]]:
    return [(s.get("from"), s.get("type")) for s in stanzas if s.tag.endswith("presence")]


async def both(world: World) -> tuple[Client, Client]:
    return await world.login("alice"), await world.login("bob")


@pytest.mark.asyncio
async def test_friends_are_made_and_parted_by_a_plugin(tmp_path: Path) -> None:
    async with watched(tmp_path) as world:
        alice, bob = await both(world)
        await world.app.server.rosters.befriend(ALICE, BOB)
        assert await subscriptions(world) == ("both", "both")
        got = await alice.receive_all()
        assert [s.get("type") for s in got if s.tag.endswith("iq")] == ["set"]
        assert shown(got) == [(bob.jid, None)]
        assert shown(await bob.receive_all()) == [(alice.jid, None)]
        rosters = world.app.server.rosters
        assert await rosters.followers(ALICE) == await rosters.following(ALICE) == (BOB,)
        assert [item.contact for item in await rosters.items(ALICE)] == [BOB]
        await rosters.befriend(ALICE, BOB)
        await alice.expect_nothing()
        await rosters.part(ALICE, BOB)
        assert await subscriptions(world) == (None, None)
        assert shown(await alice.receive_all()) == [(bob.jid, "unavailable")]
        assert shown(await bob.receive_all()) == [(alice.jid, "unavailable")]
        await rosters.part(BOB, ALICE)
        await alice.expect_nothing()
        assert world.plugin("watch").changes == [
            (ALICE, BOB, None, "both"),
            (BOB, ALICE, None, "both"),
            (ALICE, BOB, "both", None),
            (BOB, ALICE, "both", None),
        ]


@pytest.mark.asyncio
async def test_requests_that_wait_are_granted_by_friendship_and_gone_with_its_end(tmp_path: Path) -> None:
    async with watched(tmp_path) as world:
        alice, bob = await both(world)
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        await world.app.server.rosters.befriend(BOB, ALICE)
        found = await world.app.server.rosters.item(BOB, ALICE)
        assert found is not None and not found.pending_in
        assert await subscriptions(world) == ("both", "both")
        await world.app.server.rosters.part(ALICE, BOB)
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        await world.app.server.rosters.part(ALICE, BOB)
        assert await subscriptions(world) == (None, None)


class KilledError(Exception):
    """The server is no more."""


class Cut(SqliteStore):
    """A store that goes after so many changes."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.left = 1000

    async def batch(self, *args: Any, **more: Any) -> bool:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        return await super().batch(*args, **more)


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["befriend", "part"])
async def test_what_was_cut_in_two_is_finished_by_a_repeat(tmp_path: Path, what: str) -> None:
    store = Cut()
    async with watched(tmp_path, store=store) as world:
        rosters = world.app.server.rosters
        if what == "part":
            await rosters.befriend(ALICE, BOB)
        store.left = 1
        with pytest.raises(KilledError):
            await getattr(rosters, what)(ALICE, BOB)
        mine, theirs = await subscriptions(world)
        assert mine != theirs
        store.left = 1000
        await getattr(rosters, what)(ALICE, BOB)
        assert await subscriptions(world) == (("both", "both") if what == "befriend" else (None, None))


@pytest.mark.asyncio
async def test_where_one_is_refused_nothing_is_done(tmp_path: Path) -> None:
    async with watched(tmp_path, settings={"limits": {"roster_items": 1}}) as world:
        alice, _bob = await both(world)
        rosters = world.app.server.rosters
        await rosters.set_item(BOB, "carol@localhost", name="C", groups=["G"])
        await rosters.set_item(BOB, "carol@localhost", name="Carol")
        kept = await rosters.item(BOB, "carol@localhost")
        assert kept is not None and (kept.name, kept.groups) == ("Carol", ("G",))
        with pytest.raises(StanzaError, match="at most 1"):
            await rosters.befriend(ALICE, BOB)
        await rosters.remove_item(BOB, "carol@localhost")
        world.plugin("watch").refused.add(BOB)
        with pytest.raises(StanzaError, match="Not these two"):
            await rosters.befriend(ALICE, BOB)
        with pytest.raises(AccountUnknown):
            await rosters.befriend(ALICE, "nobody@localhost")
        assert await subscriptions(world) == (None, None)
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_plugin_refuses_requests_and_grants_but_no_end(tmp_path: Path) -> None:
    async with watched(tmp_path) as world:
        alice, bob = await both(world)
        world.plugin("watch").refused.add(BOB)
        for kind in ("subscribe", "subscribed"):
            await alice.send(f"<presence type='{kind}' id='s' to='bob@localhost'/>")
            assert refusal(await alice.receive()) == "cancel not-allowed"
        await bob.expect_nothing()
        world.plugin("watch").refused.clear()
        await world.befriend(alice, bob)
        world.plugin("watch").refused.add(BOB)
        for kind in ("unsubscribe", "unsubscribed"):
            await alice.send(f"<presence type='{kind}' id='s' to='bob@localhost'/>")
        assert await subscriptions(world) == ("none", "none")


@pytest.mark.asyncio
async def test_a_change_of_what_may_be_seen_is_shown(tmp_path: Path) -> None:
    async with watched(tmp_path) as world:
        alice, bob = await both(world)
        carol = await world.login("carol")
        await world.befriend(alice, bob)
        bob.app.server.hide_presence(BOB, ALICE)
        await alice.expect(f"<presence type='unavailable' from='{bob.jid}' to='alice@localhost'/>")
        bob.app.server.show_presence(BOB, ALICE)
        await alice.expect(f"<presence from='{bob.jid}' to='alice@localhost'/>")
        bob.app.server.hide_presence(BOB, "carol@localhost")
        bob.app.server.show_presence(BOB, "carol@localhost")
        await carol.expect_nothing()


@pytest.mark.asyncio
async def test_a_relation_is_made_of_both_halves_whatever_was_before(tmp_path: Path) -> None:
    async with watched(tmp_path) as world:
        alice, bob = await both(world)
        rosters = world.app.server.rosters
        for relation, mine, theirs in (
            ("asking", "none", "none"),
            ("both", "both", "both"),
            ("asked", "none", "none"),
            ("none", None, None),
            ("both", "both", "both"),
        ):
            for _ in range(2):
                await rosters.relate(ALICE, BOB, relation, status="hello")  # type: ignore[arg-type]
                assert await subscriptions(world) == (mine, theirs), relation
            counts = await rosters.counts(ALICE)
            assert counts == (int(relation == "both"), int(relation == "asking"), int(relation == "asked"))
        requests = [it for it in await bob.receive_all() if it.get("type") == "subscribe"]
        assert [(it.get("from"), it[0].text) for it in requests] == [(ALICE, "hello")]
        shown = [it.get("type") for it in await alice.receive_all() if it.tag.endswith("presence")]
        assert Counter(shown) == {
            None: 2,
            "unavailable": 1,
            "subscribe": 1,
        }  # other nodes tell theirs when they may
        await world.app.accounts.remove("carol@localhost")
        await rosters.relate(ALICE, "carol@localhost", "none")
        with pytest.raises(StanzaError):
            await rosters.relate(ALICE, "carol@localhost", "both")


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["befriend", "relate"])
async def test_neither_of_two_goes_between_the_halves(what: str) -> None:
    async with World() as world:
        server, contacts = world.app.server, world.app.contacts
        change, removals = contacts.change, []

        async def changed(account: str, *args: Any, **named: Any) -> Any:
            done = await change(account, *args, **named)
            if account == ALICE and not removals:
                removals.append(asyncio.ensure_future(server.remove_account(BOB)))
                for _ in range(100):  # as far as it comes
                    await asyncio.sleep(0)
            return done

        contacts.change = changed  # type: ignore[method-assign]
        if what == "befriend":
            await server.rosters.befriend(ALICE, BOB)
        else:
            await server.rosters.relate(ALICE, BOB, "both")
        await removals[0]
        item = await server.rosters.item(ALICE, BOB)
        assert item is not None and item.subscription == "none"


@pytest.mark.asyncio
@pytest.mark.parametrize("pair", [(ALICE, "zoe@localhost"), ("zoe@localhost", ALICE)])
async def test_nothing_is_between_somebody_and_nobody(pair: tuple[str, str]) -> None:
    async with World() as world:
        rosters = world.app.server.rosters
        for relation in ("both", "asking", "asked"):
            with pytest.raises(StanzaError):
                await rosters.relate(*pair, relation)  # type: ignore[arg-type]
        with pytest.raises(AccountUnknown):
            await rosters.befriend(*pair)
        assert await rosters.items(ALICE) == []
