"""How long messages are kept, by domain, and what operators do with archives."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from archives import DAY, ask, chat, field, find, form, later, put, world

from plugins.archive.ids import Pool, to_text
from plugins.archive.keeping import DELETED_AT_ONCE
from xmppd.errors import CommandError, StoreTimeout
from xmppd.section import changed
from xmppd.testing import World, refusal

pytestmark = pytest.mark.asyncio

DOMAINS = {"server": {"domains": ["localhost", "other.test"]}}


def archive(w: World) -> Any:
    return w.plugin("archive")


async def call(w: World, name: str, **arguments: Any) -> Any:
    return await w.app.commands.call(f"archive {name}", arguments)


async def uid_of(w: World, account: str = "alice@localhost") -> int:
    row = await archive(w).owners.get(account)
    uid: int = row["uid"]
    return uid


async def rows(w: World) -> dict[str, int]:
    """How many rows there are."""
    names = ("messages", "days", "months")
    return {name: len([1 async for _ in getattr(archive(w), name).everything()]) for name in names}


async def test_what_is_too_old_is_shown_in_no_way() -> None:
    async with world(plugin_config={"archive": {"days": 10}}) as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "now")
        ids = await put(w, await uid_of(w), 11, 9)
        found = await find(alice)
        assert found.texts == ["9", "now"]
        for inner in (field("ids", to_text(ids[0])), field("after-id", to_text(ids[0]))):
            [answer] = await ask(alice, form(inner))
            assert refusal(answer) == "cancel item-not-found"
        ends = await alice.ask("get", "<metadata xmlns='urn:xmpp:mam:2'/>", to="alice@localhost")
        assert ends[0][0].get("id") == to_text(ids[1])


async def test_each_side_lives_as_its_domain_says() -> None:
    config = {"days": 10, "domains": {"other.test": 1}}
    async with world(plugin_config={"archive": config}, settings=DOMAINS, accounts=()) as w:
        for account in ("alice@localhost", "bob@other.test"):
            await w.app.accounts.create(account, "secret")
        lives = archive(w).lives
        assert [lives.of(name) for name in ("a@localhost", "a@other.test")] == [10 * DAY, DAY]
        written: list[tuple[int, float | None]] = []
        write = archive(w).messages.write

        def noted(some: Any, *, ttl: float | None = None) -> Any:
            written.append((len(some), ttl))
            return write(some, ttl=ttl)

        archive(w).messages.write = noted
        alice = await w.login("alice")
        await chat(alice, "bob@other.test", "one", "two")
        assert (await find(alice)).texts == ["one", "two"]
        lasting = [(1, 12 * DAY), (1, 10 * DAY), (1, 3 * DAY), (1, DAY)]
        assert written[0] == (2, None) and sorted(written[1:5]) == sorted(lasting)
        assert sorted(written[5:]) == sorted([(1, 10 * DAY), (1, DAY)])


async def test_a_write_of_both_domains_whose_outcome_is_unknown_is_made_again() -> None:
    config = {"days": 0, "domains": {"other.test": 1}}
    async with world(plugin_config={"archive": config}, settings=DOMAINS, accounts=()) as w:
        for account in ("alice@localhost", "bob@other.test"):
            await w.app.accounts.create(account, "secret")
        alice = await w.login("alice")
        await chat(alice, "bob@other.test", "one")
        write, failures = archive(w).messages.write, [1]

        def failing(some: Any, *, ttl: float | None = None) -> Any:
            done = write(some, ttl=ttl)
            if ttl and failures:
                failures.pop()
                raise StoreTimeout("who knows")
            return done

        archive(w).messages.write = failing
        await chat(alice, "bob@other.test", "two")
        await w.advance(2)
        assert (await find(alice)).texts == ["one", "two"] and not failures
        assert (await rows(w))["messages"] == 4


async def test_messages_are_gone_when_their_time_is_over() -> None:
    async with world(plugin_config={"archive": {"days": 100 / DAY}}) as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        await w.advance(90)
        assert (await find(alice)).texts == ["one"]
        await w.advance(20)
        assert (await find(alice)).texts == []


@pytest.mark.parametrize("count", [3, 2 * DELETED_AT_ONCE + 7])
async def test_an_archive_is_shortened_by_a_command(count: int) -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "now")
        uid = await uid_of(w)
        edge = archive(w).now() - 40 * DAY
        await put(w, uid, *(40 + (place + 1) / 1000 for place in range(count)), 100, 39, peer="old@localhost")
        await put(w, uid, 400, peer="ancient@localhost")
        before = _stamp(edge)
        done = await call(w, "prune", before=before, account="alice@localhost")
        assert done == {"archives": 1, "messages": count + 2}
        assert (await find(alice)).texts == ["39", "now"]
        days = [
            (row["peer"], row["day"]) async for row in archive(w).days.everything() if row["owner"] == uid
        ]
        assert "ancient@localhost" not in dict(days) and all(day >= edge // DAY for _, day in days)
        assert (await call(w, "prune", before=before, all=True)) == {"archives": 0, "messages": 0}


async def test_only_archives_of_a_domain_are_shortened() -> None:
    async with world(settings=DOMAINS, accounts=()) as w:
        for account in ("alice@localhost", "bob@other.test"):
            await w.app.accounts.create(account, "secret")
        alice = await w.login("alice")
        await chat(alice, "bob@other.test", "now")
        for account in ("alice@localhost", "bob@other.test"):
            await put(w, await uid_of(w, account), 100)
        before = _stamp(archive(w).now() - 50 * DAY)
        assert await call(w, "prune", before=before, domain="other.test") == {"archives": 1, "messages": 1}
        assert (await find(alice)).texts == ["100", "now"]
        assert await call(w, "prune", before=before, all=True) == {"archives": 1, "messages": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {"before": "2020-01-01"},
        {"before": "2020-01-01", "account": "alice@localhost", "all": True},
        {"before": "yesterday", "all": True},
        {"before": "9000-01-01", "all": True},
    ],
)
async def test_what_cannot_be_shortened(arguments: dict[str, Any]) -> None:
    async with world() as w:
        with pytest.raises(CommandError):
            await call(w, "prune", **arguments)


async def test_when_messages_are_to_be_kept_for_shorter_the_older_ones_are_deleted() -> None:
    async with world(plugin_config={"archive": {"days": 50, "domains": {"other.test": 0}}}) as w:
        plugin = archive(w)
        await plugin.shorten()
        assert (await plugin.retentions.get("localhost"))["days"] == 50, "nothing was written before"
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "now")
        uid = await uid_of(w)
        await put(w, uid, 60, 40)
        await plugin.shorten()
        assert await _days(w, uid) == 3, "each lives as long as it is to"
        plugin.lives._days = 45
        await plugin.shorten()
        assert len(await call(w, "info", account="alice@localhost")) == 2
        assert await _days(w, uid) == 2
        await put(w, uid, 70)
        await plugin.shorten()
        assert await _days(w, uid) == 3, "that was done today"
        later(w, days=2)
        await plugin.shorten()
        assert await _days(w, uid) == 2
        plugin.lives._days = 20
        await plugin.shorten()
        assert await _days(w, uid) == 1
        plugin.lives._days = 0
        await plugin.shorten()
        row = {"domain": "localhost", "days": 0.0, "shorter": None, "until": None, "pruned": None}
        assert await plugin.retentions.get("localhost") == row


async def test_what_was_to_be_kept_for_longer_is_deleted_when_it_has_become_too_old() -> None:
    async with world() as w:
        plugin = archive(w)
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "new")
        uid = await uid_of(w)
        await put(w, uid, 10)
        plugin.lives._days = 30
        await plugin.shorten()
        await w.settle()
        later(w, days=9)
        await chat(alice, "carol@localhost", "short")
        assert await _days(w, uid) == 3
        later(w, days=13)
        await plugin.shorten()
        assert await _days(w, uid) == 2 and (await find(alice)).texts == ["new", "short"]
        later(w, days=20)
        await plugin.shorten()
        assert await call(w, "info", account="alice@localhost") == []
        assert (await plugin.retentions.get("localhost"))["days"] == 30
        assert (await call(w, "erase", account="bob@localhost"))["messages"] == 0
        assert (await rows(w))["messages"] == 0


async def relived(w: World, days: float, *nodes: int) -> None:
    """Messages are kept for so many days from now on, on these nodes."""
    section = changed(w.config.plugins, config={"archive": {"days": days}})
    for node in nodes:
        await w.apps[node].loader.load(changed(w.config, plugins=section))
    await w.settle()


def index_lives(w: World) -> list[float | None]:
    """For how many days the rows live by which messages are found, as they are written from now on."""
    lives: list[float | None] = []
    for plugin in w.plugins("archive"):
        row, write = plugin.writers.day.row, plugin.messages.write
        days: list[Any] = []

        def made(*about: Any, row: Any = row, days: list[Any] = days) -> Any:
            days.append(row(*about))
            return days[-1]

        def written(some: Any, *, ttl: float | None = None, write: Any = write, days: Any = days) -> Any:
            if any(one is day for one in some for day in days):
                lives.append(ttl and ttl / DAY)
            return write(some, ttl=ttl)

        plugin.writers.day, plugin.messages.write = SimpleNamespace(row=made), written
    return lives


@pytest.mark.parametrize(
    ("days", "longest"), [((30, 1), 32), ((1, 30, 1, 2), 32), ((0, 1), None), ((1, 30), 32)]
)
async def test_rows_of_a_day_live_as_long_as_any_of_its_messages(
    days: tuple[float, ...], longest: float | None
) -> None:
    async with world(plugin_config={"archive": {"days": days[0]}}) as w:
        everywhere = range(len(w.apps))
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        for each in days[1:]:
            await relived(w, each, *everywhere)
        lives = index_lives(w)
        await chat(alice, "bob@localhost", "two")
        assert lives and {*lives} == {longest}
        await archive(w).shorten()
        await w.settle()
        later(w, days=1.1)
        await chat(alice, "bob@localhost", "three")
        assert lives[-1] == days[-1] + 2, "the longer ones are of another day"


async def test_a_shorter_life_on_one_node_does_not_hide_what_another_one_keeps() -> None:
    async with world(plugin_config={"archive": {"days": 1}}, nodes=2) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", node=1)
        await relived(w, 30, 0)
        lives = index_lives(w)
        await chat(alice, "bob@localhost", "one")
        await chat(bob, "alice@localhost", "two")
        assert lives == [32] * 2


@pytest.mark.own_engine("its time can be moved")
async def test_what_lived_for_longer_is_found_by_its_peer_when_it_does_again() -> None:
    async with world(plugin_config={"archive": {"days": 30}}, nodes=1) as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        await relived(w, 1, 0)
        await chat(alice, "bob@localhost", "two")
        await relived(w, 30, 0)
        w.clock.seconds += 5 * DAY
        assert (await find(alice, form(field("with", "bob@localhost")))).texts == ["one"]


@pytest.mark.own_engine("its time can be moved")
@pytest.mark.one_node("its times are changed")
async def test_what_lives_for_ever_is_found_whatever_was_written_behind_it() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "old")
        await w.settle()
        archive(w).lives._days = 10 / DAY
        await chat(alice, "carol@localhost", "new")
        await w.settle()
        archive(w).lives._days = 0
        await alice.send("</stream:stream>")
        await w.advance(2.5 * DAY)
        assert (await rows(w))["messages"] == 2, "the first, in two archives"
        [month] = await call(w, "info", account="alice@localhost")
        assert month["messages"] == 1
        for account in ("alice@localhost", "bob@localhost"):
            assert (await call(w, "erase", account=account))["messages"] == 1
        assert (await rows(w))["messages"] == 0


async def _days(w: World, uid: int) -> int:
    return len((await archive(w).days.scan(uid)).rows)


async def test_what_an_archive_has_is_shown_by_month() -> None:
    async with world() as w:
        assert await call(w, "info", account="alice@localhost") == []
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "now")
        uid = await uid_of(w)
        await put(w, uid, 400, 399.9)
        shown = await call(w, "info", account="alice@localhost")
        assert [row["messages"] for row in shown][-1] == 1
        assert sum(row["messages"] for row in shown) == 3
        stanzas = [row["stanza"] async for row in archive(w).messages.everything() if row["owner"] == uid]
        assert sum(row["bytes"] for row in shown) == sum(map(len, stanzas))
        assert shown[0]["first"].startswith(shown[0]["month"]) and shown[0]["first"] <= shown[0]["last"]


async def test_an_archive_is_erased_with_counts_and_preferences_stay() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        lists = "<always><jid>bob@localhost</jid></always>"
        await alice.ask("set", f"<prefs xmlns='urn:xmpp:mam:2' default='roster'>{lists}</prefs>")
        await chat(alice, "bob@localhost", "one", "two")
        await w.settle()
        old = await uid_of(w)
        await put(w, old, 100)
        erased = await call(w, "erase", account="alice@localhost")
        assert erased == {"account": "alice@localhost", "messages": 3, "days": 2, "months": 2}
        assert (await find(alice)).texts == [] and (await find(bob)).texts == ["one", "two"]
        await chat(alice, "bob@localhost", "three")
        assert (await find(alice)).texts == ["three"] and await uid_of(w) != old
        [prefs] = await alice.ask("get", "<prefs xmlns='urn:xmpp:mam:2'/>")
        assert prefs.get("default") == "roster"
        assert (await call(w, "erase", account="nobody@localhost"))["messages"] == 0
        assert await call(w, "check", thorough=True) == {"unknown": 0, "messages": 0}


async def test_erasing_that_was_interrupted_goes_on_with_a_repeat_or_with_the_account() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        for end in ("repeat", "removal"):
            keeper = archive(w).keeper
            drop = keeper.drop

            async def fail(owner: int) -> None:
                raise StoreTimeout("who knows")

            keeper.drop = fail
            with pytest.raises(CommandError):
                await call(w, "erase", account="alice@localhost")
            keeper.drop = drop
            await chat(alice, "bob@localhost", "two")
            assert (await find(alice)).texts == ["two"]
            if end == "repeat":
                assert (await call(w, "erase", account="alice@localhost"))["messages"] == 1
                assert (await find(alice)).texts == ["two"]
            else:
                await w.app.accounts.remove("alice@localhost")
                await w.settle()
        bobs = await uid_of(w, "bob@localhost")
        assert {row["owner"] async for row in archive(w).messages.everything()} == {bobs}


async def test_what_is_nobodys_is_found_and_swept() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        await put(w, 5, 1, 2, 70)
        plugin = archive(w)
        lost = Pool().new_id(10**15)
        await plugin.messages.put({"owner": 6, "month": 1, "id": lost, "peer": "x", "stanza": b"<message/>"})
        before = await rows(w)
        assert await call(w, "check") == {"unknown": 1, "messages": 0}
        assert await call(w, "check", thorough=True) == {"unknown": 2, "messages": 0}
        assert await rows(w) == before
        assert await call(w, "check", sweep=True) == {"unknown": 1, "messages": 3}
        assert await call(w, "check", sweep=True) == {"unknown": 0, "messages": 0}
        assert await call(w, "check", sweep=True, thorough=True) == {"unknown": 1, "messages": 1}
        assert await call(w, "check", sweep=True, thorough=True) == {"unknown": 0, "messages": 0}
        assert await plugin.messages.get(6, 1, lost, "x") is None
        assert (await find(alice)).texts == ["one"]


async def test_what_is_nobodys_of_positions_and_of_days_alone_is_swept() -> None:
    async with world() as w:
        plugin = archive(w)
        read = {"owner": 5, "peer": "x@y", "side": "own", "id": Pool().new_id(10**15), "at": 10**15}
        await plugin.shown.put_newest(read)
        await put(w, 6, 40, 1)
        await plugin.months.delete(6)
        assert await call(w, "check", sweep=True) == {"unknown": 2, "messages": 2}
        assert [1 async for _ in plugin.shown.everything()] == []
        assert await rows(w) == {"messages": 0, "days": 0, "months": 0}
        assert await call(w, "check") == {"unknown": 0, "messages": 0}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
