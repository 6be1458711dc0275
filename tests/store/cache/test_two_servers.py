"""Two whole servers on one store and one Redis: what is done on one reaches clients of the other."""

import asyncio
import contextlib
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio
from patience import rounds

from xmppd import ns
from xmppd.config import check
from xmppd.core.accounts import NameGone
from xmppd.core.roster.item import RosterItem, row_of
from xmppd.core.roster.rosters import ROSTER
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Put
from xmppd.testing import PASSWORD, World

MISSING = "import sys; sys.modules['redis'] = None; from xmppd.__main__ import main; "


class SharedStore(SqliteStore):
    """One store for two servers, each of which closes it."""

    async def close(self) -> None:
        pass

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.rosters_read = 0

    async def scan(self, table, *args, **kwargs):
        self.rosters_read += table is ROSTER
        return await super().scan(table, *args, **kwargs)

    async def really_close(self) -> None:
        await super().close()


@pytest_asyncio.fixture
async def worlds(own_server):
    store = SharedStore(":memory:")
    settings = {"cache": {"redis": own_server.url, "prefix": secrets.token_hex(4)}}
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(World(store=store, settings=settings)),
            await stack.enter_async_context(World(store=store, settings=settings, accounts=())),
        ]
        for world in made:
            await until(lambda w=world: w.app.caches()["shared_heard"] == 1)
        yield made
    await store.really_close()


async def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)


async def received(world, client, wanted=1):
    """What the client has received when that is as much as wanted."""
    stanzas = []
    end = time.monotonic() + 10
    while len(stanzas) < wanted:
        assert time.monotonic() < end, f"only {len(stanzas)} stanzas came"
        await asyncio.sleep(0.01)
        await world.settle()
        stanzas += await client.receive_all()
    return stanzas


async def set_item(client, contact, more=""):
    await client.send(
        f"<iq type='set' id='s'><query xmlns='{ns.ROSTER}'><item jid='{contact}' {more}/></query></iq>"
    )
    await client.receive_all()


def pushed(stanza):
    query = stanza.find(f"{{{ns.ROSTER}}}query")
    (item,) = query
    return item.get("jid"), item.get("subscription"), query.get("ver")


@pytest.mark.asyncio
async def test_a_change_is_pushed_to_sessions_of_the_other(worlds):
    one, two = worlds
    here, there = await one.login("alice", "here"), await two.login("alice", "there")
    await set_item(here, "bob@localhost")
    (push,) = await received(two, there)
    version = one.app.sessions.accounts["alice@localhost"].roster.version
    assert pushed(push) == ("bob@localhost", "none", str(version))
    await set_item(here, "bob@localhost", "subscription='remove'")
    (push,) = await received(two, there)
    assert pushed(push)[:2] == ("bob@localhost", "remove")
    await here.expect_nothing()


@pytest.mark.asyncio
async def test_what_is_missed_is_told_before_what_is_built_on_it(worlds):
    """A change that is built on another node's comes after that in what clients are told."""
    one, two = worlds
    here, there = await one.login("alice", "here"), await two.login("alice", "there")
    two.app.cache._tell = lambda *_: None  # its notices are late
    await set_item(here, "bob@localhost")
    await set_item(here, "carol@localhost")
    await there.send(
        f"<iq type='set' id='s'><query xmlns='{ns.ROSTER}'><item jid='dave@localhost'/></query></iq>"
    )
    pushes = [pushed(stanza) for stanza in await there.receive_all() if stanza.get("id") != "s"]
    assert [push[0] for push in pushes] == ["bob@localhost", "carol@localhost", "dave@localhost"]
    versions = [int(push[2]) for push in pushes]
    assert versions == sorted(set(versions)), "each says more than the one before"


@pytest.mark.asyncio
async def test_a_subscription_between_servers_reaches_both_rosters(worlds):
    one, two = worlds
    alice, bob = await one.login("alice"), await two.login("bob")
    await alice.send("<presence type='subscribe' to='bob@localhost'/>")
    await bob.send("<presence type='subscribed' to='alice@localhost'/>")
    live = one.app.sessions.accounts["alice@localhost"]
    await until(lambda: live.roster.is_following("bob@localhost"))
    assert two.app.sessions.accounts["bob@localhost"].roster.is_follower("alice@localhost")


@pytest.mark.asyncio
async def test_a_password_counts_everywhere(worlds):
    one, two = worlds
    await two.login("alice")
    heard = two.app.caches()["shared_invalidations_received"]
    await one.app.accounts.set_password("alice@localhost", "another")
    await until(lambda: two.app.caches()["shared_invalidations_received"] > heard)
    client = two.connect()
    await client.open()
    assert (await client.authenticate("alice", PASSWORD)).tag.endswith("failure")
    client = two.connect()
    await client.open()
    assert (await client.authenticate("alice", "another")).tag.endswith("success")


@pytest.mark.parametrize("what", ["disable", "remove", "password"])
@pytest.mark.asyncio
async def test_who_is_shut_out_on_one_leaves_the_other(worlds, what):
    one, two = worlds
    there, half = await two.login("alice"), two.connect()
    await half.open()
    await half.authenticate("alice")
    await half.open()
    if what == "disable":
        await one.app.accounts.disable("alice@localhost")
    elif what == "remove":
        await one.app.server.remove_account("alice@localhost")
    else:
        await one.app.accounts.set_password("alice@localhost", "another")
    await until(lambda: not two.app.logins.is_here("alice@localhost"))
    await two.settle()
    condition = "reset" if what == "password" else "not-authorized"
    await there.expect_closed(condition)
    await half.expect_closed(condition)


@pytest.mark.asyncio
async def test_a_new_password_that_spares_sessions_spares_those_of_the_other(worlds):
    one, two = worlds
    there = await two.login("alice")
    heard = two.app.caches()["shared_invalidations_received"]
    await one.app.accounts.set_password("alice@localhost", "another", keep_sessions=True)
    await until(lambda: two.app.caches()["shared_invalidations_received"] > heard)
    await two.settle()
    await there.expect_nothing()


@pytest.mark.asyncio
async def test_a_password_changed_while_redis_was_away_ends_sessions_when_it_is_back(worlds, own_server):
    one, two = worlds
    there = await two.login("alice")
    own_server.kill()
    await until(lambda: not any(w.app.caches()["shared_heard"] + w.app.caches()["shared_up"] for w in worlds))
    await one.app.accounts.set_password("alice@localhost", "another")
    await there.expect_nothing()
    await asyncio.to_thread(own_server.start)
    await until(lambda: not two.app.sessions.of("alice@localhost"))
    await there.expect_closed("reset")


@pytest.mark.asyncio
async def test_a_name_is_not_given_out_while_the_other_may_still_write_for_it(worlds):
    """What it writes late goes, too, before anybody has the name."""
    one, two = worlds
    one.app.accounts.gone_seconds = two.app.accounts.gone_seconds = 2.0
    await one.app.server.remove_account("alice@localhost")
    for world in worlds:
        with pytest.raises(NameGone):
            await world.app.accounts.create("alice@localhost", "another")
    late = row_of(RosterItem("bob@localhost", ask=True))
    version = {"version": 2**41}
    assert await one.app.store.batch(ROSTER, ("alice@localhost",), [Put(late)], static=version)
    await asyncio.sleep(0.1)
    one.clock.seconds += 1.5
    async for _ in rounds():
        if not await one.app.rosters.items("alice@localhost"):
            break
    assert not await one.app.rosters.items("alice@localhost")
    async for _ in rounds():
        with contextlib.suppress(NameGone):
            await two.app.accounts.create("alice@localhost", "another")
            break
    assert await two.app.server.account_exists("alice@localhost")


@pytest.mark.asyncio
async def test_what_changed_while_redis_was_away_is_told_when_it_is_back(worlds, own_server):
    one, two = worlds
    here, there = await one.login("alice", "here"), await two.login("alice", "there")
    own_server.kill()
    await until(lambda: not any(w.app.caches()["shared_heard"] + w.app.caches()["shared_up"] for w in worlds))
    await set_item(here, "bob@localhost")
    await two.app.accounts.disable("carol@localhost")
    await one.app.accounts.set_password("bob@localhost", "another")
    assert one.app.caches()["credentials"] == 0, "nobody tells of changes now"
    await asyncio.to_thread(own_server.start)
    (push,) = await received(two, there)
    assert pushed(push)[0] == "bob@localhost"


@pytest.mark.asyncio
async def test_a_write_whose_end_is_never_told_is_looked_at(worlds):
    one, two = worlds
    await one.login("alice", "here")
    there = await two.login("alice", "there")
    await one.app.cache.begin("alice@localhost")
    await until(lambda: two.app.elsewhere._underway)
    store = one.app.store
    assert await store.batch(
        ROSTER, ("alice@localhost",), [Put(row_of(RosterItem("bob@localhost")))], static={"version": 2**41}
    )
    two.clock.seconds += 31
    (push,) = await received(two, there)
    assert pushed(push) == ("bob@localhost", "none", str(2**41))


@pytest.mark.asyncio
@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "channel-lost"])
async def test_who_logs_in_while_it_is_written_is_looked_at_too(worlds, is_heard):
    """Nobody here was online when the write began, and its end is never told."""
    one, two = worlds
    await one.app.cache.begin("alice@localhost")
    there = await two.login("alice", "there")
    if not is_heard:
        two.app.elsewhere.lost()
        two.app.elsewhere.back()
        await two.settle()
    await one.app.store.batch(
        ROSTER, ("alice@localhost",), [Put(row_of(RosterItem("bob@localhost")))], static={"version": 2**41}
    )
    await two.settle()
    await there.expect_nothing()
    two.clock.seconds += 31
    (push,) = await received(two, there)
    assert pushed(push) == ("bob@localhost", "none", str(2**41))


@pytest.mark.asyncio
async def test_what_a_login_costs(worlds):
    one, two = worlds
    store = one.app.store
    here = await one.login("alice", "here")
    await set_item(here, "bob@localhost")
    version = one.app.sessions.accounts["alice@localhost"].roster.version

    async def login(world):
        calls, reads = world.app.caches()["shared_calls"], store.rosters_read
        client = await world.login("alice")
        assert world.app.sessions.accounts["alice@localhost"].roster.version == version
        await client.send("<presence type='unavailable'/>")
        return world.app.caches()["shared_calls"] - calls, store.rosters_read - reads

    assert await login(two) == (1, 0), "warm"
    assert await login(two) == (0, 0), "in memory"
    await here.drop()  # or its server would look at the roster, too
    two.app.rosters.forget_all()
    two.app.sessions.accounts["alice@localhost"].roster = None
    await two.app.cache.read("alice@localhost", fresh=True)
    await two.app.cache._link.call("DEL", two.app.cache._keys("alice@localhost")[1])
    assert await login(two) == (2, 1), "cold"


@pytest.mark.asyncio
async def test_status_counts(worlds):
    one, _ = worlds
    await one.login("alice")
    caches = one.app.caches()
    assert caches["shared_up"] == 1 and caches["shared_calls"] > 0 and caches["shared_misses"] >= 1


def test_the_default_imports_no_driver():
    code = "import sys, xmppd.serve; assert not {'redis', 'hiredis', 'cassandra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_without_the_package_the_server_exits_with_78(tmp_path: Path):
    file = tmp_path / "xmppd.yaml"
    file.write_text(f"server: {{data_folder: {tmp_path}}}\ncache: {{redis: 'redis://127.0.0.1'}}\n")
    code = f"{MISSING}sys.argv = ['xmppd', '--config', {str(file)!r}, 'serve']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 78
    assert "pip install 'xmppd[redis]'" in done.stderr
    assert f"{file}:2" in done.stderr and "Traceback" not in done.stderr


GOOD = [
    "redis://127.0.0.1:6379/1",
    "redis://user:pass@host",
    "redis://[::1]:6379",
    "rediss://host:6380?ssl_ca_certs=/etc/ca.pem",
    "unix:///run/redis.sock",
    "redis+sentinel://a:26379,b:26379/main/1",
    "rediss+sentinel://:secret@a,b/main",
    "redis+cluster://a:7000,b:7001",
]
BAD = [
    ("http://host", "must be a redis://"),
    ("host:6379", "must be a redis://"),
    ("redis+ring://host", "must be a redis://"),
    ("redis://", "must be a redis://"),
    ("redis+sentinel://a:1,b:2", "name the service"),
    ("redis+cluster://a:1,,b:2", "must hold host:port"),
    ("redis://a:port", "must hold host:port"),
]


def problems(tmp_path, url):
    file = tmp_path / "xmppd.yaml"
    file.write_text(f"cache:\n  redis: '{url}'\n")
    return check(file, {})


@pytest.mark.parametrize("url", GOOD)
def test_a_url_is_taken(tmp_path, url):
    assert problems(tmp_path, url) == []


@pytest.mark.parametrize(("url", "message"), BAD)
def test_a_bad_url_is_refused_at_its_line(tmp_path, url, message):
    (problem,) = problems(tmp_path, url)
    assert (problem.line, problem.path) == (2, "cache.redis")
    assert message in problem.message
