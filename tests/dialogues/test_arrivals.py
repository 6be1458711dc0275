"""Accounts that come from another server into one that runs: what they bring, and that nobody is told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arrived import (
    ALICE,
    BLOCKED,
    BOB,
    CARD,
    DORA,
    EVERYTHING,
    PLUGINS,
    RUN,
    arrival,
    everything,
    held,
    item,
    roster,
)

from xmppd import ns
from xmppd.arriving import line_of
from xmppd.core.accounts import AccountUnknown
from xmppd.core.arrival import ARRIVALS, Outcome, Terms
from xmppd.core.roster.item import ROSTER as TABLE
from xmppd.core.roster.subscription import State
from xmppd.errors import CommandError, StoreTimeout, StoreUnavailable
from xmppd.moving import MigrateOffice
from xmppd.parts.belongings import belongings_of, gives, takes
from xmppd.store.table import Row
from xmppd.testing import World


@pytest.mark.asyncio
async def test_an_account_arrives_with_all_it_has() -> None:
    async with World(plugins=PLUGINS) as world:
        outcome = await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        assert (outcome.done, sorted(outcome.kinds)) == ("made", sorted(EVERYTHING))
        assert await everything(world, DORA) == EVERYTHING
        assert (await world.app.accounts.info(DORA)).created == 1000.0
        dora = await world.bind("dora")
        got = await dora.ask("get", f"<query xmlns='{ns.ROSTER}' ver='83'/>")
        assert got[0][0].attrib == {"jid": ALICE, "subscription": "both", "name": "Alice"}
        await dora.send("<presence/>")
        bodies = [tree.findtext(f"{{{ns.CLIENT}}}body") for tree in await dora.receive_all()]
        assert [body for body in bodies if body] == ["hello", "again"]


@pytest.mark.asyncio
async def test_nobody_is_told() -> None:
    async with World() as world:
        alice = await world.login("alice")
        friends = roster(item(ALICE), item(BOB, State.NONE_OUT))
        await world.app.arrivals.take(arrival(roster=friends), RUN)
        await world.app.arrivals.take(
            arrival(ALICE, roster=roster(item(DORA))), replace(RUN, conflict="merge")
        )
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_sessions_are_told_if_that_is_wanted() -> None:
    async with World() as world:
        alice = await world.login("alice")
        terms = replace(RUN, conflict="merge", live=True)
        await world.app.arrivals.take(arrival(ALICE, roster=roster(item(BOB, name="Bob"))), terms)
        await alice.expect(
            f"<iq type='set' id='*' to='{alice.jid}'><query xmlns='{ns.ROSTER}' ver='*'>"
            f"<item jid='{BOB}' subscription='both' name='Bob'/></query></iq>"
        )
        bob = await world.login("bob")
        await bob.expect_nothing()
        await world.app.arrivals.take(arrival(BOB, roster=roster(item(ALICE))), terms)
        await bob.receive_all()
        await alice.send("<presence><show>away</show></presence>")
        assert [tree.findtext(f"{{{ns.CLIENT}}}show") for tree in await bob.receive_all()] == ["away"]


@pytest.mark.asyncio
async def test_an_account_that_is_here_is_kept() -> None:
    async with World(plugins=PLUGINS) as world:
        outcome = await world.app.arrivals.take(arrival(ALICE, password="other", **EVERYTHING), RUN)
        assert outcome.done == "kept"
        assert await everything(world, ALICE) == {}
        await world.bind("alice")


@pytest.mark.asyncio
async def test_merging_adds_and_takes_nothing() -> None:
    async with World(plugins=PLUGINS) as world:
        before = arrival(roster=roster(item(ALICE, State.TO, name="A")), vcard=CARD, blocks=BLOCKED[:1])
        await world.app.arrivals.take(before, RUN)
        more = roster(item(ALICE, State.FROM, groups=["x"]), item(BOB))
        second = arrival(password="new", roster=more, vcard=CARD.replace("Dora", "D"), blocks=BLOCKED[1:])
        terms = Terms("run2", "merge")
        outcome = await world.app.arrivals.take(second, terms)
        assert (outcome.done, sorted(outcome.kinds)) == ("changed", ["blocks", "roster", "vcard"])
        found = await everything(world, DORA)
        assert found["roster"] == roster(item(ALICE, State.BOTH, name="A", groups=["x"]), item(BOB))
        assert (found["vcard"], found["blocks"]) == (CARD, BLOCKED)
        await world.bind("dora")
        assert (await world.app.arrivals.take(second, Terms("run3", "merge"))).done == "unchanged"


@pytest.mark.asyncio
async def test_replacing_makes_it_like_the_source() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        dora = await world.bind("dora")
        terms = Terms("run2", "replace")
        outcome = await world.app.arrivals.take(arrival(password="new", roster=roster(item(BOB))), terms)
        assert outcome.done == "changed"
        await world.settle()  # its session may be on another node
        assert (await everything(world, DORA)).keys() == {"roster", "last"}  # it was here a moment ago
        assert (await everything(world, DORA))["roster"] == roster(item(BOB))
        assert (await dora.receive()).tag == f"{{{ns.STREAM}}}error"
        other = world.connect()
        await other.open()
        assert (await other.authenticate("dora", "new")).tag == f"{{{ns.SASL}}}success"


@pytest.mark.asyncio
async def test_the_same_source_again_changes_nothing() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        version = await world.app.rosters.version(DORA)
        assert (await world.app.arrivals.take(arrival(**EVERYTHING), RUN)).done == "made"
        for conflict in ("merge", "replace"):
            terms = Terms("run2", conflict)  # type: ignore[arg-type]
            assert (await world.app.arrivals.take(arrival(**EVERYTHING), terms)).done == "unchanged"
        assert await world.app.rosters.version(DORA) == version


@pytest.mark.asyncio
async def test_messages_that_were_read_do_not_come_back() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        await world.login("dora")
        changed = {**EVERYTHING, "roster": roster(item(BOB))}
        outcome = await world.app.arrivals.take(arrival(**changed), Terms("run2", "replace"))
        assert outcome.kinds == ("roster",)
        assert "offline" not in await everything(world, DORA)


class Cut(Exception):
    """The process dies here."""


@pytest.mark.asyncio
@pytest.mark.parametrize("conflict", ["keep", "merge", "replace"])
@pytest.mark.parametrize("cut", range(12))
@pytest.mark.parametrize("together", [False, True])
async def test_a_run_that_was_cut_is_finished_by_its_repeat(
    conflict: Any, cut: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = Terms("run1", conflict)
    async with World(plugins=PLUGINS) as world:
        there = arrival(
            ALICE, roster=roster(item(BOB, State.TO)), vcard="<vCard xmlns='vcard-temp'><A/></vCard>"
        )
        await world.app.arrivals.take(there, Terms("run0", "merge"))
        wanted = [arrival(**EVERYTHING), arrival(ALICE, password="new", **EVERYTHING)]
        left = cut
        store = world.app.store
        with monkeypatch.context() as patch:
            for name in ("put", "put_many", "batch", "put_if"):
                real = getattr(store, name)

                async def maybe(*given: Any, real: Any = real, **more: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise Cut
                    return await real(*given, **more)

                patch.setattr(store, name, maybe)
            try:
                if together:
                    await world.app.arrivals.take_all(wanted, terms)
                for one in [] if together else wanted:
                    await world.app.arrivals.take(one, terms)
            except (Cut, StoreUnavailable):
                pass
        world.app.accounts.forget_all()
        world.app.rosters.forget_all()
        outcomes = [(await world.app.arrivals.take(one, terms)).done for one in wanted]
        assert outcomes == ["made", {"keep": "kept"}.get(conflict, "changed")]
        assert await everything(world, DORA) == EVERYTHING
        found = await everything(world, ALICE)
        if conflict == "keep":
            assert found == {"roster": roster(item(BOB, State.TO)), "vcard": there.parts["vcard"]}
        elif conflict == "replace":
            assert found == EVERYTHING
        else:
            assert found == {
                **EVERYTHING,
                "roster": [*EVERYTHING["roster"], *roster(item(BOB, State.TO))],
                "vcard": there.parts["vcard"],
            }


@pytest.mark.asyncio
async def test_many_are_taken_as_each_for_itself() -> None:
    new = [f"new{number}@localhost" for number in range(3)]
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), Terms("run0"))
        keyless = replace(arrival("other@localhost", roster=[]), credentials={})
        wanted = [arrival(new[0], **EVERYTHING), arrival(ALICE), keyless, arrival(**EVERYTHING)]
        wanted += [arrival(name, roster=roster(item(name.replace("new", "x")))) for name in new[1:]]
        found = await world.app.arrivals.take_all(wanted, RUN)
        outcomes = [(it.account, it.done) for it in found if isinstance(it, Outcome)]
        states = ["made", "kept", "failed", "kept", "made", "made"]
        assert outcomes == [(it.account, state) for it, state in zip(wanted, states, strict=True)]
        assert await everything(world, new[0]) == EVERYTHING
        for name in new[1:]:
            assert await held(world, name, name.replace("new", "x")) is not None
        again = await world.app.arrivals.take_all(wanted, RUN)
        assert [it.done for it in again if isinstance(it, Outcome)] == states
        marks = [(row["account"], row["state"]) for row in (await world.app.store.scan_all(ARRIVALS)).rows]
        assert sorted(marks) == [(DORA, "done"), *((name, "done") for name in new)]


@pytest.mark.asyncio
async def test_who_takes_the_name_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    emil = "emil@localhost"
    async with World(plugins=PLUGINS) as world:
        real = world.app.rosters.lay

        async def lay(account: str, *given: Any, **more: Any) -> int:
            version = await real(account, *given, **more)
            if account == DORA:
                await world.app.accounts.create(DORA, "mine")
                await world.app.rosters.change(DORA, BOB, lambda old: item(BOB, State.NONE))
            return version

        wanted = [arrival(**EVERYTHING), arrival(emil, **EVERYTHING)]
        with monkeypatch.context() as patch:
            patch.setattr(world.app.rosters, "lay", lay)
            found = await world.app.arrivals.take_all(wanted, RUN)
        assert isinstance(found[0], AccountUnknown)
        assert isinstance(found[1], Outcome)
        assert await everything(world, DORA) == {"roster": roster(item(BOB, State.NONE))}
        assert await everything(world, emil) == EVERYTHING
        assert (await world.app.arrivals.take(wanted[0], RUN)).done == "kept"
        assert await undone(world, RUN.run) == [(DORA, "kept"), (emil, "removed")]
        assert await everything(world, DORA) == {"roster": roster(item(BOB, State.NONE))}


@pytest.mark.asyncio
async def test_an_account_that_was_made_later_than_it_was_waited_for_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World(plugins=PLUGINS) as world:
        store = world.app.store
        real, rows = store.put_if, []

        async def late(table: Any, row: Any, expect: Any) -> bool:
            rows.append((table, row, expect))
            raise StoreTimeout("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(store, "put_if", late)
            with pytest.raises(StoreTimeout):
                await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        lay = world.app.rosters.rewrite

        async def slow(account: str, *given: Any, **more: Any) -> Any:
            await real(*rows[0])
            return await lay(account, *given, **more)

        with monkeypatch.context() as patch:
            patch.setattr(world.app.rosters, "rewrite", slow)
            assert (await world.app.arrivals.take(arrival(**EVERYTHING), RUN)).done == "made"
        assert await everything(world, DORA) == EVERYTHING
        assert await undone(world, RUN.run) == [(DORA, "removed")]


class Keeper:
    """A plugin that keeps things of two kinds."""

    name = "keeper"

    @gives("one")
    async def one(self, account: str) -> str | None:
        return account.upper() if account != BOB else None

    @gives("many", many=True)
    async def many(self, accounts: Sequence[str]) -> list[int]:
        return [len(accounts)] * len(accounts)

    @takes("one")
    @takes("many")
    async def take(self, account: str, value: Any) -> None: ...


@pytest.mark.asyncio
async def test_what_plugins_keep_is_asked_for_one_account_or_for_many() -> None:
    kinds = belongings_of([Keeper()])
    assert await kinds["one"].give_all([ALICE, BOB]) == [ALICE.upper(), None]
    assert await kinds["many"].give_all([ALICE, BOB]) == [2, 2]


@pytest.mark.asyncio
async def test_accounts_are_given_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=PLUGINS) as world:
        office = MigrateOffice(world.app.accounts, world.app.arrivals, world.app.store, Path())
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        asked = ["nobody@localhost", DORA, ALICE]
        given, _ = await office.give(None, asked)
        assert {row["account"]: row["parts"] for row in given} == {DORA: EVERYTHING, ALICE: {}}
        assert [(row["run"], row["ours"]) for row in given] == [(RUN.run, []), (None, None)]
        assert await office.states(asked) == {row["account"]: row["state"] for row in given}
        await world.app.rosters.change(DORA, BOB, lambda old: item(BOB))
        both = {**EVERYTHING, "roster": [*EVERYTHING["roster"], *roster(item(BOB))]}
        real = world.app.store.scan_many

        async def torn(*asked: Any, **more: Any) -> list[list[Row]]:
            found = await real(*asked, **more)
            for rows in found:
                for row in rows[:-1]:
                    row.update({"version": 1, "value": "old"} if "version" in row else {})
            return found

        with monkeypatch.context() as patch:
            patch.setattr(world.app.store, "scan_many", torn)
            [(version, parts)] = await world.app.arrivals.give_many([DORA])
        assert parts == both
        assert version == await world.app.rosters.version(DORA)
        [row] = (await office.give(None, [DORA]))[0]
        assert (row["parts"], row["ours"]) == (both, ["roster"])
        assert row["state"] not in {it["state"] for it in given}
        assert await office.states([DORA]) == {DORA: row["state"]}


async def undone(world: World, run: str) -> list[tuple[str, str]]:
    rows = (await world.app.store.scan_all(ARRIVALS)).rows
    outcomes = [await world.app.arrivals.undo(row) for row in rows if row["run"] == run]
    return sorted((outcome.account, outcome.done) for outcome in outcomes)


@pytest.mark.asyncio
async def test_a_run_is_taken_back() -> None:
    async with World(plugins=PLUGINS) as world:
        alice = await world.login("alice")
        await alice.ask("set", CARD)
        before = await everything(world, ALICE)
        terms = Terms("run1", "replace")
        await world.app.arrivals.take(arrival(**EVERYTHING), terms)
        await world.app.arrivals.take(arrival(ALICE, password="new", **EVERYTHING), terms)
        assert await undone(world, "run1") == [(ALICE, "restored"), (DORA, "removed")]
        assert await everything(world, ALICE) == before
        assert await everything(world, DORA) == {}
        assert not await world.app.server.account_exists(DORA)
        await world.bind("alice")
        assert (await world.app.store.scan(TABLE, (DORA,))).rows == []
        assert await undone(world, "run1") == [(ALICE, "unchanged")]
        await world.app.accounts.create(DORA, "mine")
        assert await everything(world, DORA) == {}


@pytest.mark.asyncio
async def test_what_came_later_stays() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        await world.app.arrivals.take(arrival("emil@localhost", **EVERYTHING), RUN)
        dora = await world.login("dora")
        await world.advance(1)
        await dora.send(f"<iq type='set' id='s'><query xmlns='{ns.ROSTER}'><item jid='{BOB}'/></query></iq>")
        await dora.receive_all()
        await world.app.accounts.set_password("emil@localhost", "mine")
        assert await undone(world, "run1") == [(DORA, "kept"), ("emil@localhost", "kept")]
        assert await held(world, DORA, ALICE) is not None


@pytest.mark.asyncio
async def test_nothing_is_written_by_a_dry_run() -> None:
    async with World(plugins=PLUGINS) as world:
        outcome = await world.app.arrivals.take(arrival(**EVERYTHING), replace(RUN, dry=True))
        assert (outcome.done, sorted(outcome.kinds)) == ("made", sorted(EVERYTHING))
        assert not await world.app.server.account_exists(DORA)
        assert await everything(world, DORA) == {}
        assert (await world.app.store.scan_all(ARRIVALS)).rows == []


@pytest.mark.asyncio
async def test_what_no_plugin_keeps_is_told() -> None:
    async with World() as world:
        outcome = await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        assert sorted(outcome.notes) == [
            f"not kept here: {kind}" for kind in ("last", "offline", "private", "vcard")
        ]
        assert sorted(outcome.kinds) == ["blocks", "roster"]


@pytest.mark.asyncio
async def test_a_large_roster_comes_in_pieces_and_whole() -> None:
    many = roster(*(item(f"c{number:04}@localhost", name="x" * 100) for number in range(1200)))
    async with World() as world:
        await world.app.arrivals.take(arrival(roster=many), RUN)
        assert (await everything(world, DORA))["roster"] == many
        dora = await world.bind("dora")
        got = await dora.ask("get", f"<query xmlns='{ns.ROSTER}'/>")
        assert len(got[0]) == 1200
        entries = await world.app.rosters.log(DORA)
        assert [(entry.by, entry.what, entry.is_whole) for entry in entries] == [
            ("migrate run1", "import", False)
        ]


@pytest.mark.asyncio
async def test_an_import_is_not_undone_contact_by_contact() -> None:
    async with World() as world:
        await world.app.arrivals.take(arrival(roster=roster(item(ALICE))), RUN)
        [line] = await world.app.commands.call("roster log", {"account": DORA})
        assert (line["by"], line["what"], line["contact"]) == ("migrate run1", "import", "")
        with pytest.raises(CommandError, match="xmppd migrate undo"):
            await world.app.commands.call("roster undo", {"account": DORA, "version": line["version"]})


@pytest.mark.asyncio
@pytest.mark.parametrize("conflict", ["keep", "merge"])
async def test_two_that_are_one_account_here_do_not_mix(conflict: str, tmp_path: Path) -> None:
    one, other = arrival(roster=roster(item(ALICE))), arrival(password="x", roster=roster(item(BOB)))
    file = tmp_path / "accounts.jsonl"
    file.write_bytes(line_of(one) + b"\n" + line_of(other) + b"\n")
    async with World() as world:
        given = {"file": str(file), "run": "run1", "conflict": conflict}
        outcomes = await world.app.commands.call("migrate apply", given)
        assert [row["done"] for row in outcomes] == ["made", "kept" if conflict == "keep" else "changed"]
        items = [item(ALICE)] if conflict == "keep" else [item(ALICE), item(BOB)]
        assert (await everything(world, DORA))["roster"] == roster(*items)
        await world.bind("dora")


@pytest.mark.asyncio
async def test_nobody_inherits_blocks() -> None:
    async with World() as world:
        await world.app.arrivals.take(arrival(blocks=BLOCKED), RUN)
        await world.app.accounts.remove(DORA)
        await world.app.accounts.create(DORA, "mine")
        assert await everything(world, DORA) == {}
        assert (await world.app.store.scan_all(ARRIVALS)).rows == []
