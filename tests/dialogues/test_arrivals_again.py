"""Accounts that came from another server and come again: what was changed here is known, and stays."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from arrived import ALICE, BLOCKED, BOB, CARD, DORA, EVERYTHING, MESSAGE, PLUGINS, RUN, arrival, item, roster

from xmppd import ns
from xmppd.core.accounts import ACCOUNT
from xmppd.core.arrival import ARRIVALS, Terms
from xmppd.testing import World

SHADOW = Terms("shadow", "replace", shadows=True)


async def mark_of(world: World) -> Mapping[str, Any] | None:
    return await world.app.store.get(ARRIVALS, (DORA,))


async def changed_here(world: World) -> tuple[str, ...] | None:
    row = await world.app.store.get(ACCOUNT, (DORA,))
    assert row is not None
    return await world.app.arrivals.changed_here(row, await mark_of(world))


@pytest.mark.asyncio
async def test_what_was_changed_here_is_known_by_kind() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        assert await changed_here(world) == ()
        await world.app.rosters.change(DORA, ALICE, lambda old: None)
        assert await changed_here(world) == ("roster",)
        await world.app.blocks.write(DORA, blocked=["other.example"], unblocked=BLOCKED, since=1.0)
        assert await changed_here(world) == ("roster", "blocks")
        dora = await world.bind("dora")
        await dora.ask("set", "<vCard xmlns='vcard-temp'><FN>D</FN></vCard>")
        await dora.ask("set", f"<query xmlns='{ns.PRIVATE}'><x xmlns='urn:x'>1</x></query>")
        await dora.send("<presence/>")
        await dora.receive_all()
        assert set(await changed_here(world) or ()) == {"roster", "blocks", "vcard", "private", "offline"}
        await world.app.accounts.disable(DORA)
        assert "disabled" in (await changed_here(world) or ())


@pytest.mark.asyncio
async def test_keys_that_are_made_at_a_login_are_no_change() -> None:
    async with World(plugins=PLUGINS) as world:
        whole = arrival()
        one = {name: value for name, value in whole.credentials.items() if name != "scram_sha_256"}
        await world.app.arrivals.take(replace(whole, credentials=one), RUN)
        await world.app.store.put(ACCOUNT, {"account": DORA, **whole.credentials, "changed": 5})
        assert await changed_here(world) == ()
        await world.app.accounts.set_password(DORA, "another one")
        assert await changed_here(world) == ("keys",)


@pytest.mark.asyncio
async def test_of_who_was_not_brought_nothing_is_known() -> None:
    async with World() as world:
        row = await world.app.store.get(ACCOUNT, (ALICE,))
        assert row is not None
        assert await world.app.arrivals.changed_here(row, None) is None


@pytest.mark.asyncio
async def test_messages_without_a_moment_are_no_change() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(offline=[[MESSAGE, None]]), RUN)
        assert await changed_here(world) == ()


@pytest.mark.asyncio
async def test_what_was_merged_is_no_change_of_ours() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(vcard=CARD, blocks=BLOCKED[:1]), RUN)
        more = arrival(vcard=CARD.replace("Dora", "D"), blocks=BLOCKED[1:])
        await world.app.arrivals.take(more, Terms("run2", "merge"))
        assert await changed_here(world) == ()


@pytest.mark.asyncio
async def test_a_shadow_says_what_was_changed_here_and_keeps_the_rest() -> None:
    async with World(plugins=PLUGINS) as world:
        assert (await world.app.arrivals.take(arrival(**EVERYTHING), SHADOW)).done == "made"
        again = await world.app.arrivals.take(arrival(**EVERYTHING), SHADOW)
        assert (again.done, again.ours) == ("unchanged", ())
        await world.app.blocks.write(DORA, blocked=["other.example"], unblocked=BLOCKED, since=1.0)
        await world.app.rosters.change(DORA, ALICE, lambda old: None)
        again = await world.app.arrivals.take(arrival(**EVERYTHING), SHADOW)
        assert (again.done, again.ours) == ("unchanged", ("roster", "blocks"))
        changed = arrival(**{**EVERYTHING, "roster": roster(item(BOB))})
        again = await world.app.arrivals.take(changed, SHADOW)
        assert (again.done, again.kinds, again.ours) == ("changed", ("roster",), ("roster", "blocks"))
        again = await world.app.arrivals.take(changed, SHADOW)
        assert (again.done, again.ours) == ("unchanged", ("blocks",))


@pytest.mark.asyncio
async def test_who_is_disabled_there_is_here_and_it_can_be_undone() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(), RUN)
        off = replace(arrival(), disabled=True)
        again = await world.app.arrivals.take(off, SHADOW)
        assert (again.done, again.kinds) == ("changed", ("disabled",))
        assert (await world.app.accounts.info(DORA)).disabled
        await world.app.accounts.enable(DORA)
        assert (await world.app.arrivals.take(off, SHADOW)).ours == ("disabled",)
        await world.app.arrivals.take(arrival(), SHADOW)
        await world.app.arrivals.take(off, SHADOW)
        mark = await mark_of(world)
        assert mark is not None
        assert (await world.app.arrivals.undo(dict(mark))).done == "restored"
        assert not (await world.app.accounts.info(DORA)).disabled


@pytest.mark.asyncio
async def test_nobody_is_made_whose_keys_did_not_come_along() -> None:
    async with World() as world:
        outcome = await world.app.arrivals.take(replace(arrival(), credentials={}), SHADOW)
        assert outcome.done == "failed"
        assert await world.app.store.get(ACCOUNT, (DORA,)) is None


@pytest.mark.asyncio
async def test_a_later_logout_is_no_change() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        dora = await world.bind("dora")
        await dora.send("</stream:stream>")
        assert await world.app.arrivals.give(DORA, "last") != EVERYTHING["last"]
        assert await changed_here(world) == ()


@pytest.mark.asyncio
async def test_what_a_later_run_does_not_write_stands_as_the_earlier_one_left_it() -> None:
    async with World(plugins=PLUGINS) as world:
        await world.app.arrivals.take(arrival(**EVERYTHING), RUN)
        other = arrival(**{**EVERYTHING, "vcard": CARD.replace("Dora", "D")})
        assert (await world.app.arrivals.take(other, SHADOW)).kinds == ("vcard",)
        assert await changed_here(world) == ()
