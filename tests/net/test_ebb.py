"""Memory goes back to the system when many connections have gone, once, and not while they go."""

import ctypes
import resource
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from xmppd.allocator import collect, trim
from xmppd.core.lastseen import LastSeen
from xmppd.core.sessions import Broadcast
from xmppd.net.ebb import STILL, Ebb
from xmppd.testing import World


def released(*connections: int) -> list[int]:
    """At which looks memory was given back."""
    calls: list[int] = []
    ebb = Ebb(lambda: calls.append(len(looks)))
    looks: list[int] = []
    for number in connections:
        ebb.look(number)
        looks.append(number)
    return calls


def test_after_the_fall_and_a_little_later() -> None:
    still = [100] * STILL
    assert released(0, 1000, 900, 400, *still, 100, 100, 100, 100, 50, 0, 0, 0, 0) == [9, 12]
    assert released(1000, 0, *[0] * STILL, *[0] * 9) == [6, 9]


def test_not_while_most_are_there_or_for_a_few() -> None:
    assert released(1000, 600, *[600] * 9) == []
    assert released(99, 0, 0, 50, *[0] * 9) == []


def test_storm_that_comes_back_at_once_keeps_its_memory() -> None:
    assert released(1000, 0, 1000, 1000) == []


def test_storm_that_takes_a_while_to_come_back_finds_what_was_known_of_it() -> None:
    assert released(1000, 300, 0, 0, 0, 0, 400, 1000, 1000, 1000) == []
    assert released(1000, 0, *range(0, 500, 20), 1000) == []


def test_a_few_newcomers_keep_nothing_back() -> None:
    assert released(1000, 0, *range(10)) == [6, 9]


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_trim_returns_free_pages() -> None:
    blocks = [ctypes.create_string_buffer(b"x" * 60_000, 60_000) for _ in range(500)]
    keep = blocks[::10]
    before = resident()
    del blocks
    trim()
    assert before - resident() > 10_000_000
    assert len(keep) == 50


class Looked:
    """Something whose attributes are looked for."""


def test_names_that_were_looked_for_are_forgotten() -> None:
    collect()
    before = sys.getallocatedblocks()
    names = ["n" * (number % 60) + f"ame{number}" for number in range(20_000)]
    assert not any(hasattr(Looked, name) for name in names)
    del names
    collect()
    assert sys.getallocatedblocks() - before < 5_000, "some belong to other threads"


@pytest.mark.asyncio
async def test_last_words_are_kept_while_they_are_written() -> None:
    async with World() as world:
        app, later = world.app, list[Coroutine[Any, Any, None]]()
        spawn, hold = later.append, app.accounts.hold
        seen = LastSeen(app.store, app.sessions, app.rosters, app.visibility, spawn, time.time, hold)
        for words in (b"a", b"b"):
            seen.remember(
                "bob@localhost", Broadcast(b"<presence", b"><status>" + words + b"</status></presence>")
            )
        seen.release()
        assert seen.cached == len(later) == 1
        await later.pop()
        seen.release()
        assert seen.cached == 0


@pytest.mark.asyncio
async def test_nobody_notices_that_caches_were_given_up() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        for _ in range(2):
            answer = await alice.ask("get", "<query xmlns='jabber:iq:roster'/>")
            assert [item.get("jid") for item in answer[0]] == ["bob@localhost"]
            for connections in (1000, 0, *[0] * STILL):
                world.app.service.ebb.look(connections)
            assert world.app.rosters.cache["rosters"] == world.app.rosters.cache["roster_bytes"] == 0
        again = await world.login("alice", "again")
        await bob.expect(f"<presence from='{again.jid}' to='bob@localhost'/>")
