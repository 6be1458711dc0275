"""What a server does while the world around it fails: its disk, its database, its clock.

The first one runs `scripts/bench/soak` for a few seconds; an operator runs it for longer.
"""

import asyncio
import contextlib
import os
import re
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from patience import PATIENCE

from xmppd import ns
from xmppd.core.accounts import ACCOUNT, AccountUnknown
from xmppd.core.roster.rosters import ROSTER
from xmppd.errors import StoreTimeout, StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Table
from xmppd.testing import PASSWORD, Clock, World, refusal

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
BODY = f"{{{ns.CLIENT}}}body"
DISK_MIB = 24
LARGE = "x" * 8_000


@pytest.mark.asyncio
async def test_a_short_soak(free_ports):
    (port,) = free_ports(1)
    command = [BENCH / "soak", "--minutes", "0.1", "--share", "0.3", "--port", str(port)]
    done = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r'"logins": (\d+)', done.stdout)[1]) > 100


# a disk without room


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.fail(
            f"This test fills a disk and mounts a small tmpfs for that, which is not permitted here: "
            f"run it as root, in a container with CAP_SYS_ADMIN ({mounted.stderr.strip()})"
        )
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk):
    """Leave no room; what to delete to have it again."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0
    return ballast


def error_of(answer):
    error = answer.find(f"{{{ns.CLIENT}}}error")
    return None if error is None else (error.get("type"), error[0].tag.rpartition("}")[2])


async def leave_message(client, to, number):
    """Whether the server has taken the message (it says nothing then), or how it was refused."""
    body = f"<body>{number} {LARGE}</body>"
    await client.send(f"<message to='{to}@localhost' type='chat' id='m{number}'>{body}</message>")
    await client.ping()
    answers = [tree for tree in client._inbox if tree.get("id") == f"m{number}"]
    return error_of(answers[0]) if answers else None


async def leave_messages(client, to, numbers):
    """Which were taken; every other one was refused for now."""
    taken = []
    for number in numbers:
        error = await leave_message(client, to, number)
        assert error in (None, ("wait", "resource-constraint")), error
        if error is None:
            taken.append(number)
    return taken


async def chat(one, other, text):
    await one.send(f"<message to='{other.jid}' type='chat'><body>{text}</body></message>")
    while (await other.receive("message")).findtext(BODY) != text:
        pass  # refusals of what was sent before


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_full_disk(prepared, disk):
    server = prepared(
        server={"data_folder": str(disk / "data")}, plugins={"enabled": ["ping", "offline", "last"]}
    )
    server.data = disk / "data"
    await server.start()
    server.add("alice", "bob", "carol", "dave")
    alice, bob = await server.login("alice"), await server.login("bob")
    taken = await leave_messages(alice, "carol", range(10))
    ballast = fill(disk)

    # Some room is left in the files that are there.
    number = 10
    while await leave_message(alice, "carol", number) is None:
        taken.append(number)
        number += 1
        assert number < 2000, "a full disk takes everything"
    taken += await leave_messages(alice, "carol", range(3000, 3100))
    assert len(taken) < number + 90, "most of them were refused"
    await chat(alice, bob, "still here")
    await chat(bob, alice, "so am I")
    assert alice.is_over is bob.is_over is False
    for _ in range(20):  # whose last logout cannot be kept
        (await server.login("dave", presence=False)).cut()
    lines = server.records("store-failed")
    assert "the disk is full" in lines[0]["error"] or "disk I/O" in lines[0]["error"], lines[0]
    assert 1 <= len(lines) < 12, f"{len(lines)} lines for 100 stanzas"

    ballast.unlink()
    taken += await leave_messages(alice, "carol", range(5000, 5010))
    assert taken[-10:] == list(range(5000, 5010)), "it goes on by itself"
    answer = await alice.put_contact("friend@localhost", "afterwards")
    assert answer.get("type") == "result"
    await server.kill()
    await server.start()
    carol = await server.login("carol")
    assert [int(body.split()[0]) for body in await carol.bodies()] == taken
    assert not [record for record in server.records() if record["level"] == "error"]


# a database that others use


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_database_locked_by_another_program(serve):
    server = await serve(plugins={"enabled": ["ping", "offline"]})
    alice, bob = await server.login("alice"), await server.login("bob")
    other = sqlite3.connect(server.data / "xmppd.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    waiting = asyncio.create_task(alice.put_contact("soon@localhost", "short"))
    await chat(bob, bob, "meanwhile")
    assert await bob.roster() == [], "what is there can be read"
    assert not waiting.done()
    other.rollback()
    assert (await waiting).get("type") == "result", "a short lock is waited for"

    other.execute("BEGIN EXCLUSIVE")
    waiting = asyncio.create_task(alice.put_contact("never@localhost", "long"))
    started = time.monotonic()
    while not waiting.done():
        await chat(bob, bob, "meanwhile")
        await asyncio.sleep(0.05)
    assert error_of(await waiting) == ("wait", "resource-constraint")
    assert 4 < time.monotonic() - started < 4 + PATIENCE
    (line,) = server.records("store-failed")
    assert "is locked by another program" in line["error"]
    other.rollback()
    other.close()
    assert (await alice.put_contact("after@localhost", "")).get("type") == "result"
    assert sorted(jid for jid, _ in await alice.roster()) == ["after@localhost", "soon@localhost"]


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_damaged_database_is_refused(prepared):
    server = prepared()
    await server.start()
    server.add("alice")
    await server.stop()
    file = server.data / "xmppd.sqlite"
    size = file.stat().st_size
    with file.open("r+b") as database:  # all pages but the first
        database.seek(4096)
        database.write(b"\xa5" * (size - 4096))
    before = len(server.log)
    server.spawn()
    assert await server.ended() == 69
    (sentence,) = server.log[before:].splitlines()
    assert "xmppd.sqlite is damaged: restore it from a backup" in sentence


# a clock that jumps

DAY = 86400.0
OPEN = {"registration": True}
REGISTER = "<query xmlns='jabber:iq:register'><username>{}</username><password>pw</password></query>"


class Jumping(Clock):
    """A wall clock that somebody sets; the monotonic one knows nothing of it."""

    offset = 0.0

    def now(self):
        return super().now() + self.offset


async def world_with_a_clock_to_set():
    world = World(
        plugins=("offline", "register", "ping"),
        plugin_config={"register": {**OPEN, "accounts": 1, "attempts": 100}},
    )
    world.clock = Jumping()
    return world


async def roster_version(client, name):
    """The version in the push after a change."""
    item = f"<item jid='friend@localhost' name='{name}'/>"
    await client.send(f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")
    (push,) = [tree[0] for tree in await client.receive_all() if tree.get("type") == "set"]
    return int(push.get("ver"))


async def register(world, name):
    """None, or how it was refused."""
    client = world.connect()
    await client.open()
    answer = await client.ask("set", REGISTER.format(name))
    return None if answer.get("type") == "result" else refusal(answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("jump", [600, -600, DAY, -DAY])
async def test_a_clock_that_jumps(jump):
    """Sessions end by the monotonic clock, order is by sequence; stamps and lifetimes follow the jump."""
    async with await world_with_a_clock_to_set() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        assert await register(world, "dave") is None
        assert await register(world, "erin") == "wait resource-constraint"
        versions = []
        for number, offset in enumerate((0, 0, jump, jump, 0, 0)):
            world.clock.offset = offset
            await alice.send(f"<message to='carol@localhost'><body>{number}</body></message>")
            versions.append(await roster_version(alice, f"name {number}"))
        assert versions == sorted(set(versions)), "each is newer than the one before"

        world.clock.offset = jump
        await world.advance(5)
        assert not alice.closed and not bob.closed
        await bob.send("<presence type='unavailable'><status>gone</status></presence>")
        await alice.receive_all()
        again = await world.bind("alice")
        await again.send("<presence/>")
        assert "gone" in [tree.findtext(f"{{{ns.CLIENT}}}status") for tree in await again.receive_all()]
        carol = await world.bind("carol")
        await carol.send("<presence/>")
        bodies = [tree.findtext(BODY) for tree in await carol.receive_all()]
        assert [body for body in bodies if body is not None] == list("012345")
        wanted = "wait resource-constraint" if jump == 600 else None
        assert await register(world, "erin") == wanted, "nobody is locked out for a day"


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_rows_expire_on_after_a_jump_back(tmp_path):
    clock = Jumping()
    tokens = Table("tokens", ("owner",), columns={"value": "text"}, ttl=10)
    store = SqliteStore(tmp_path / "store.sqlite", now=clock.now)
    await store.open([tokens])
    await store.put(tokens, {"owner": "a", "value": "x"})
    clock.offset = -DAY
    await store.put(tokens, {"owner": "b", "value": "x"})
    clock.offset = 70 - DAY
    await store.put(tokens, {"owner": "c", "value": "x"})
    await store.put(tokens, {"owner": "d", "value": "x"})
    await store.close()
    assert store.stats.purged == 1, "that of `b`"


# halves


class Failing(SqliteStore):
    """A store that refuses some writes for a while: like a kill between two writes, and easier to time."""

    refuses = staticmethod(lambda table, partition: False)
    is_unreadable = False

    async def batch(self, table, partition, writes, **how):
        self._check(table, partition)
        return await super().batch(table, partition, writes, **how)

    async def get(self, table, key):
        if self.is_unreadable:
            raise StoreUnavailable("not now")
        return await super().get(table, key)

    async def delete(self, table, key):
        self._check(table, key[:1])
        await super().delete(table, key)

    async def delete_if(self, table, key, expect):
        self._check(table, key[:1])
        return await super().delete_if(table, key, expect)

    def _check(self, table, partition):
        if self.refuses(table.name, partition[0]):
            raise StoreUnavailable("not now")


REMOVAL = (
    f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'>"
    "<item jid='alice@localhost' subscription='remove'/></query></iq>"
)


ITEM = f"<query xmlns='{ns.ROSTER}'><item jid='{{}}@localhost'/></query>"


async def subscription(world, account, contact):
    item = await world.app.rosters.get_item(f"{account}@localhost", f"{contact}@localhost")
    return "none" if item is None else item.subscription


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("act", "who", "other"),
    [
        ("<presence type='subscribed' to='alice@localhost'/>", "bob", "alice"),
        ("<presence type='unsubscribed' to='alice@localhost'/>", "bob", "alice"),
        ("<presence type='unsubscribe' to='bob@localhost'/>", "alice", "bob"),
        (
            REMOVAL,
            "bob",
            "alice",
        ),
    ],
)
async def test_a_repeat_mends_half_a_friendship(act, who, other):
    store = Failing(":memory:")
    async with World(store=store) as world:
        clients = {"alice": await world.login("alice"), "bob": await world.login("bob")}
        await clients["alice"].send("<presence type='subscribe' to='bob@localhost'/>")
        is_grant = "'subscribed'" in act
        if not is_grant:
            await clients["bob"].send("<presence type='subscribed' to='alice@localhost'/>")
        for client in clients.values():
            await client.receive_all()
        store.refuses = lambda table, account: (table, account) == ("roster", f"{other}@localhost")
        await clients[who].send(act)
        errors = [tree for tree in await clients[who].receive_all() if tree.get("type") == "error"]
        assert [refusal(error) for error in errors] == ["wait resource-constraint"]
        store.refuses = lambda table, account: False
        await clients[who].send(act)
        assert not [tree for tree in await clients[who].receive_all() if tree.get("type") == "error"]
        assert await subscription(world, "alice", "bob") == ("to" if is_grant else "none")
        assert await subscription(world, "bob", "alice") == ("from" if is_grant else "none")


@pytest.mark.asyncio
async def test_a_name_is_taken_until_nothing_is_left_of_who_had_it():
    store = Failing(":memory:")
    async with World(store=store, plugins=("vcard", "register"), plugin_config={"register": OPEN}) as world:
        bob = await world.login("bob")
        await bob.ask("set", "<vCard xmlns='vcard-temp'><FN>Bob</FN></vCard>")
        store.refuses = lambda table, account: table == "account"
        with pytest.raises(StoreUnavailable):
            await world.app.server.remove_account("bob@localhost")
        assert await register(world, "bob") == "cancel conflict"
        assert await world.plugin("vcard").cards.get("bob@localhost") is None, "deleted before the account"
        store.refuses = lambda table, account: False
        await world.app.server.remove_account("bob@localhost")
        assert await register(world, "bob") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("table", ["offline_queue", "last_presence"])
async def test_an_account_is_not_removed_while_something_of_it_is_left(table):
    """Whoever has the name next must not be given what was written to the one before."""
    store = Failing(":memory:")
    async with World(store=store, plugins=("offline", "vcard")) as world:
        alice = await world.login("alice")
        await alice.send("<message to='bob@localhost' type='chat'><body>for the old bob</body></message>")
        store.refuses = lambda name, account: name == table
        with pytest.raises(StoreUnavailable):
            await world.app.server.remove_account("bob@localhost")
        assert (await world.app.accounts.info("bob@localhost")).disabled
        store.refuses = lambda name, account: False
        await world.app.server.remove_account("bob@localhost")
        await world.app.accounts.create("bob@localhost", PASSWORD)
        bob = await world.login("bob")
        assert [stanza for stanza in await bob.receive_all() if stanza.tag.endswith("message")] == []


class Unheard(SqliteStore):
    """A store that does what it is told, and cannot say so while it is `deaf`."""

    deaf = False

    async def batch(self, *args, **how):
        done = await super().batch(*args, **how)
        if self.deaf:
            raise StoreTimeout("nobody knows")
        return done


@pytest.mark.asyncio
async def test_a_change_of_unknown_outcome_is_told_when_it_is_known(monkeypatch):
    """The session has to have what the version that it is told of stands for."""
    monkeypatch.setattr("xmppd.core.roster.rosters._RETRY_SECONDS", -1.0)
    store = Unheard(":memory:")
    async with World(store=store) as world:
        alice, other = await world.login("alice"), await world.login("alice")
        for session in (alice, other):
            await session.ask("get", f"<query xmlns='{ns.ROSTER}'/>")
            await session.receive_all()
        store.deaf = True
        setting = asyncio.create_task(alice.ask("set", ITEM.format("bob")))
        await asyncio.sleep(0.05)
        store.deaf = False
        assert refusal(await setting) == "wait resource-constraint"
        await alice.ask("set", ITEM.format("carol"))
        async with asyncio.timeout(10):
            while world.app.rosters.cache["rosters_unsure"]:
                await world.settle()
        stanzas = await other.receive_all()
        pushes = [stanza[0] for stanza in stanzas if stanza.get("type") == "set"]
        assert [push[0].get("jid") for push in pushes] == ["bob@localhost", "carol@localhost"]
        assert pushes[-1].get("ver") == str((await store.get_static(ROSTER, ("alice@localhost",)))["version"])


async def remove_and_be_killed(world, client, store, table):
    """Ask for the removal of the account. What is done then ends where `table` is deleted from."""
    is_there = asyncio.Event()

    def refuse(name, account):
        if name == table:
            is_there.set()
        return name == table

    store.refuses = refuse
    removal = "<query xmlns='jabber:iq:register'><remove/></query>"
    asking = asyncio.create_task(client.ask("set", removal))
    await asyncio.wait_for(is_there.wait(), 10)
    await world.app.jobs.drain(0.1)
    assert (await asking).get("type") == "result"
    store.refuses = lambda name, account: False


@pytest.mark.asyncio
async def test_a_promised_removal_is_finished_after_a_restart():
    store = Failing(":memory:")
    async with World(store=store, plugins=("register",)) as world:
        bob = await world.login("bob")
        await remove_and_be_killed(world, bob, store, "account")
        assert (await world.app.accounts.info("bob@localhost")).disabled, "it is there, and nobody gets in"
        await world.app.loader.reload("register", world.config)
        await world.settle()
        with pytest.raises(AccountUnknown):
            await world.app.accounts.info("bob@localhost")
        assert [row async for row in world.plugin("register").removals.everything()] == []


@pytest.mark.asyncio
async def test_a_promised_removal_does_not_remove_who_has_the_name_now():
    store = Failing(":memory:")
    async with World(
        store=store, plugins=("register",), plugin_config={"register": {**OPEN, "accounts": 9}}
    ) as world:
        bob = await world.login("bob")
        await remove_and_be_killed(world, bob, store, "register_removals")  # the promise stays
        assert not await world.app.server.account_exists("bob@localhost")
        await world.advance(1)
        await world.app.accounts.create("bob@localhost", "another")
        await world.app.loader.reload("register", world.config)
        await world.settle()
        assert await world.app.server.account_exists("bob@localhost")
        assert [row async for row in world.plugin("register").removals.everything()] == []


@pytest.mark.asyncio
async def test_a_late_end_of_a_promise_spares_what_the_next_owner_was_promised():
    """As two nodes do that finish one promise: the slower one comes when the name is taken again."""
    async with World(plugins=("register",)) as world:
        removals = world.plugin("register").removals
        info = await world.app.accounts.info("bob@localhost")
        theirs = {"account": "bob@localhost", "asked": 2.0, "created": info.created}
        await removals.put(theirs)
        await world.plugin("register")._finish_removal("bob@localhost", 1.0, info.created - 1)
        assert [row async for row in removals.everything()] == [theirs]
        assert not (await world.app.accounts.info("bob@localhost")).disabled
        await world.plugin("register")._finish_removal("bob@localhost", 2.0, info.created)
        assert [row async for row in removals.everything()] == []
        assert not await world.app.server.account_exists("bob@localhost")


class Overtaken(SqliteStore):
    """A store in which another server removes an account when this one deletes its roster."""

    next_owner = None

    async def get_static(self, table, partition):
        if table.name == "roster":
            await self.delete(ACCOUNT, partition)
            if self.next_owner is not None:
                await self.put(ACCOUNT, {"account": partition[0], **self.next_owner})
        return await super().get_static(table, partition)


@pytest.mark.asyncio
@pytest.mark.parametrize("next_owner", [None, {"created": 7.0, "disabled": False}], ids=["free", "taken"])
async def test_a_removal_that_another_server_finishes_first_is_done(next_owner):
    store = Overtaken(":memory:")
    async with World(store=store, plugins=("vcard",)) as world:
        store.next_owner = next_owner
        await world.app.server.remove_account("bob@localhost")
        row = await store.get(ACCOUNT, ("bob@localhost",))
        assert row is None if next_owner is None else row["created"] == 7.0
        with pytest.raises(AccountUnknown):
            await world.app.server.remove_account("bob@localhost", 8.0)
        assert row is None or not (await world.app.accounts.info("bob@localhost")).disabled


@pytest.mark.asyncio
async def test_nobody_can_register_without_a_store_and_the_stream_lives_on():
    store = Failing(":memory:")
    async with World(
        store=store, plugins=("register",), plugin_config={"register": {**OPEN, "accounts": 9}}
    ) as world:
        client = world.connect()
        await client.open()
        store.is_unreadable = True
        answer = await client.ask("set", REGISTER.format("dave"))
        assert refusal(answer) == "wait resource-constraint"
        store.is_unreadable = False
        assert (await client.ask("set", REGISTER.format("dave"))).get("type") == "result"


@pytest.mark.asyncio
async def test_nobody_can_log_in_without_a_store_and_the_log_says_why(caplog):
    store = Failing(":memory:")
    async with World(store=store) as world:
        alice = world.connect()
        await alice.open()
        store.is_unreadable = True
        answer = await alice.authenticate("alice")
        assert answer[0].tag == f"{{{ns.SASL}}}temporary-auth-failure"
        assert [record.error for record in caplog.records if record.msg == "store-failed"] == ["not now"]
        store.is_unreadable = False
        assert (await alice.authenticate("alice")).tag == f"{{{ns.SASL}}}success"
