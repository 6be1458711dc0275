"""Message archives (XEP-0313): what is in them, pages of them, preferences, and their end."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from archives import BODY, STANZA_ID, ask, chat, field, find, form, later, page, world
from stores import new_store

from xmppd import ns
from xmppd.errors import StoreTimeout, StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Key, Prepared, Store, Table
from xmppd.testing import refusal

pytestmark = pytest.mark.asyncio


async def test_both_sides_have_what_was_said_and_the_receiver_is_told_its_id() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "one")
        [live] = await bob.receive_all()
        [stanza_id] = live.iterfind(STANZA_ID)
        assert stanza_id.get("by") == "bob@localhost"
        found = await find(bob, attrs=" queryid='f27'")
        assert found.ids == [stanza_id.get("id")] == [found.first] == [found.last] and found.is_complete
        [message] = found.messages
        assert (
            message is not None and message.get("from") == alice.jid and message.get("to") == "bob@localhost"
        )
        assert found.results[0].get("queryid") == "f27"
        assert (await find(alice)).texts == ["one"]


async def test_somebody_who_is_away_finds_it_later_and_nobody_is_refused() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        await alice.expect_nothing()
        bob = await w.login("bob")
        assert (await find(bob)).texts == ["one"]


async def test_what_waits_offline_has_the_id_of_the_archive() -> None:
    async with world("offline") as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        bob = await w.bind("bob")
        await bob.send("<presence/>")
        [kept] = [stanza for stanza in await bob.receive_all() if stanza.findtext(BODY)]
        [stanza_id] = kept.iterfind(STANZA_ID)
        assert (await find(bob)).ids == [stanza_id.get("id")]


async def test_to_oneself_it_is_there_once() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "alice@localhost", "note")
        await chat(alice, "bob@localhost", "other")
        assert (await find(alice, form(field("with", "alice@localhost")))).texts == ["note"]
        assert (await find(alice)).texts == ["note", "other"]


@pytest.mark.parametrize(
    ("stanza", "is_kept"),
    [
        ("<message to='bob@localhost' type='chat'><body>x</body></message>", True),
        ("<message to='bob@localhost'><body>x</body></message>", True),
        ("<message to='{bob}' type='chat'><body>x</body></message>", True),
        ("<message to='bob@localhost/gone' type='chat'><body>x</body></message>", True),
        ("<message to='bob@localhost/gone'><body>x</body></message>", False),
        ("<message to='nobody@localhost' type='chat'><body>x</body></message>", False),
        ("<message to='bob@localhost' type='groupchat'><body>x</body></message>", False),
        ("<message to='bob@localhost' type='headline'><body>x</body></message>", False),
        ("<message to='bob@localhost' type='error'><body>x</body></message>", False),
        ("<message to='localhost' type='chat'><body>x</body></message>", False),
        (
            "<message to='bob@localhost'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>",
            False,
        ),
    ],
)
async def test_what_is_kept(stanza: str, is_kept: bool) -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await alice.send(stanza.format(bob=bob.jid))
        assert (await find(alice)).texts == ["x"] * is_kept
        assert (await find(bob)).texts == ["x"] * is_kept


async def test_pages_forwards_and_backwards() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", *"abcdefg")
        found = await find(bob, page("<max>3</max>"))
        assert found.texts == [*"abc"] and not found.is_complete
        found = await find(bob, page(f"<max>3</max><after>{found.last}</after>"))
        assert found.texts == [*"def"] and not found.is_complete
        found = await find(bob, page(f"<max>3</max><after>{found.last}</after>"))
        assert found.texts == ["g"] and found.is_complete
        assert (await find(bob, page(f"<after>{found.last}</after>"))).texts == []
        found = await find(bob, page("<max>3</max><before/>"))
        assert found.texts == [*"efg"] and not found.is_complete
        found = await find(bob, page(f"<max>3</max><before>{found.first}</before>") + "<flip-page/>")
        assert found.texts == [*"dcb"] and not found.is_complete
        found = await find(bob, page(f"<max>3</max><before>{found.last}</before>"))
        assert found.texts in (["a"], [*"abc"])
        found = await find(bob, page("<max>7</max>"))
        assert found.texts == [*"abcdefg"] and found.is_complete
        found = await find(bob, page("<max>0</max>"))
        assert found.texts == [] and not found.is_complete and found.first is None


async def test_a_page_goes_over_months_and_empty_ones() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        for text, days in (("a", 0), ("b", 20), ("c", 70), ("d", 1)):
            later(w, days=days)
            await chat(alice, "bob@localhost", text)
        assert (await find(bob, page("<max>3</max>"))).texts == [*"abc"]
        assert (await find(bob, page("<max>3</max><before/>"))).texts == [*"bcd"]
        found = await find(bob, form(field("with", "alice@localhost")) + page("<max>3</max><before/>"))
        assert found.texts == [*"bcd"] and not found.is_complete
        assert (await find(bob, form(field("with", "alice@localhost")))).texts == [*"abcd"]


async def test_all_filters_together() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        moments = []
        for number in range(6):
            await w.advance(10)
            moments.append(datetime.fromtimestamp(w.clock.now(), UTC).isoformat())
            await chat((alice, carol)[number % 2], "bob@localhost", str(number))
        ids = (await find(bob)).ids
        whole = [field("with", "alice@localhost"), field("start", moments[1]), field("end", moments[5])]
        assert (await find(bob, form(*whole))).texts == ["2", "4"]
        assert (await find(bob, form(*whole, field("after-id", ids[2])))).texts == ["4"]
        assert (await find(bob, form(*whole, field("before-id", ids[3])))).texts == ["2"]
        assert (await find(bob, form(field("with", carol.jid)))).texts == ["1", "3", "5"]
        assert (await find(bob, form(field("with", "carol@localhost/elsewhere")))).texts == []
        assert (await find(bob, form(field("ids", ids[4], ids[1])))).texts == ["1", "4"]
        assert (await find(bob, form(field("with", "nobody@localhost")))).texts == []


@pytest.mark.parametrize(
    "inner",
    [
        page("<after>{id}</after>"),
        page("<before>{id}</before>"),
        form(field("after-id", "{id}")),
        form(field("before-id", "{id}")),
        form(field("ids", "{id}")),
        form(field("with", "alice@localhost")) + page("<after>{id}</after>"),
    ],
)
async def test_an_id_that_is_not_there_is_not_found(inner: str) -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "one")
        await chat(alice, "carol@localhost", "not for bob")
        [_, other] = (await find(alice)).ids
        for id in (other, "nonsense", "AAAAAAAAAAAAAAAA"):
            [answer] = await ask(bob, inner.replace("{id}", id))
            assert refusal(answer) == "cancel item-not-found"


async def test_an_archive_is_for_its_owner() -> None:
    async with world() as w:
        bob = await w.login("bob")
        await w.login("alice")
        for payload in (f"<query xmlns='{ns.MAM}'/>", f"<prefs xmlns='{ns.MAM}' default='never'/>"):
            answer = await bob.ask("set", payload, to="alice@localhost")
            assert refusal(answer) == "auth forbidden"
        for payload in (
            f"<query xmlns='{ns.MAM}'/>",
            f"<metadata xmlns='{ns.MAM}'/>",
            f"<prefs xmlns='{ns.MAM}'/>",
        ):
            assert refusal(await bob.ask("get", payload, to="alice@localhost")) == "auth forbidden"


async def test_the_ends_of_an_archive() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        answer = await bob.ask("get", f"<metadata xmlns='{ns.MAM}'/>")
        assert len(answer[0]) == 0
        await chat(alice, "bob@localhost", "a", "b")
        later(w, days=40)
        await chat(alice, "bob@localhost", "c")
        ids = (await find(bob)).ids
        answer = await bob.ask("get", f"<metadata xmlns='{ns.MAM}'/>")
        assert [end.get("id") for end in answer[0]] == [ids[0], ids[-1]]
        assert answer[0][0].get("timestamp") == "2023-11-14T22:13:20.000Z"


async def test_the_form_and_the_features() -> None:
    async with world("disco") as w:
        bob = await w.login("bob")
        answer = await bob.ask("get", f"<query xmlns='{ns.MAM}'/>")
        assert answer.find(f".//{{{ns.DATA_FORM}}}x") is not None
        answer = await bob.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="bob@localhost")
        features = {feature.get("var") for feature in answer.iter(f"{{{ns.DISCO_INFO}}}feature")}
        assert {ns.MAM, f"{ns.MAM}#extended", ns.STANZA_ID} <= features


async def test_preferences_decide_for_each_side() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        never = "<never><jid>alice@localhost</jid></never>"
        wanted = f"<prefs xmlns='{ns.MAM}' default='always'><always/>{never}</prefs>"
        answer = await bob.ask("set", wanted)
        assert (
            answer.get("type") == "result" and answer[0].findtext(f".//{{{ns.MAM}}}jid") == "alice@localhost"
        )
        await chat(alice, "bob@localhost", "one")
        [live] = await bob.receive_all()
        assert live.find(STANZA_ID) is None
        assert (await find(bob)).texts == [] and (await find(alice)).texts == ["one"]
        answer = await bob.ask("get", f"<prefs xmlns='{ns.MAM}'/>")
        assert answer[0].get("default") == "always"


async def test_preferences_count_at_once_for_who_has_written_before() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "before")
        await bob.ask("set", f"<prefs xmlns='{ns.MAM}' default='never'/>")
        await w.settle()
        await chat(alice, "bob@localhost", "after")
        assert (await find(bob)).texts == ["before"]
        assert (await find(alice)).texts == ["before", "after"]


async def test_those_of_the_roster_alone() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await w.befriend(alice, bob)
        await bob.ask("set", f"<prefs xmlns='{ns.MAM}' default='roster'/>")
        await chat(alice, "bob@localhost", "friend")
        await chat(carol, "bob@localhost", "stranger")
        assert (await find(bob)).texts == ["friend"]


async def test_whoever_has_the_name_next_finds_nothing() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "one")
        await bob.receive_all()
        archive = w.plugin("archive")
        row = await archive.owners.get("bob@localhost")
        assert row is not None and (await archive.months.scan(row["uid"])).rows
        accounts = w.apps[0].accounts
        await accounts.remove("bob@localhost")
        await w.advance(30)
        await accounts.create("bob@localhost", "secret")
        bob = await w.login("bob")
        assert (await find(bob)).texts == []
        await chat(alice, "bob@localhost", "two")
        assert (await find(bob)).texts == ["two"]
        assert (await find(alice)).texts == ["one", "two"]
        assert (await archive.months.scan(row["uid"])).rows == [], "what was the first one's is gone"
        new = await archive.owners.get("bob@localhost")
        assert new is not None and new["uid"] != row["uid"]


async def test_old_ones_go() -> None:
    async with world(plugin_config={"archive": {"days": 10}}) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "old")
        later(w, days=6)
        await chat(alice, "bob@localhost", "new")
        later(w, days=5)
        assert (await find(bob)).texts == ["new"]
        [old, new] = ["old", "new"]
        assert (await find(bob, form(field("with", "alice@localhost")))).texts == [new] != [old]


class Failing:
    """Fails writes in a row."""

    def __init__(self, store: Store, *errors: Exception) -> None:
        self.errors = list(errors)
        self.write = store.write
        store.write = self.fail  # type: ignore[method-assign]

    def fail(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> Any:
        writing = self.write(rows, ttl=ttl)
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, StoreUnavailable):
                writing.cancel()
                raise error
            failed = writing.get_loop().create_future()
            failed.set_exception(error)
            return failed
        return writing


async def test_what_cannot_be_kept_is_refused_and_nobody_sees_it() -> None:
    async with world(store=(store := new_store())) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "one")
        await bob.receive_all()
        Failing(store, StoreUnavailable("full"))
        await chat(alice, "bob@localhost", "two")
        [answer] = await alice.receive_all()
        assert refusal(answer) == "wait resource-constraint"
        await bob.expect_nothing()
        await chat(alice, "bob@localhost", "three")
        [live] = await bob.receive_all()
        assert live.findtext(BODY) == "three"


async def test_a_write_nobody_knows_of_is_made_again_with_the_same_id() -> None:
    async with world(store=(store := new_store())) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "one")
        Failing(store, StoreTimeout("slow"), StoreTimeout("slow"))
        await chat(alice, "bob@localhost", "two")
        await w.advance(3)
        found = await find(bob)
        assert found.texts == ["one", "two"]


async def test_such_a_write_is_made_again_when_its_plugin_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.archive.AGAIN_SECONDS", 0.0)
    async with world(store=(store := new_store())) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "one")
        for plugin in w.plugins("archive"):
            plugin.scope.stop_timers()
        Failing(store, StoreTimeout("slow"), StoreTimeout("slow"))
        await chat(alice, "bob@localhost", "two")
        assert (await find(bob)).texts == ["one", "two"]


class SlowStore(SqliteStore):
    """A store whose answers take a turn of the loop, as those of a cluster do."""

    def __init__(self) -> None:
        super().__init__(":memory:")

    async def get(self, table: Table, key: Key) -> Any:
        await asyncio.sleep(0)
        return await super().get(table, key)


@pytest.mark.own_engine("a store that answers late")
async def test_a_message_is_kept_while_nothing_may_be_remembered_of_accounts() -> None:
    async with world(store=SlowStore()) as w:
        alice = await w.login("alice")
        for app in w.apps:
            app.accounts.trust(is_told=False)  # Redis is away
        await chat(alice, "bob@localhost", "one")
        await chat(alice, "bob@localhost", "two")
        await alice.expect_nothing()
        bob = await w.login("bob")
        assert (await find(bob)).texts == ["one", "two"]
