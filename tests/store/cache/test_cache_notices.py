"""The channel between nodes: what cannot be read on it; and failures that are none of Redis."""

import asyncio

import pytest
from patience import PATIENCE

from tests.store.cache.conftest import Node
from xmppd.core.roster.packed import pack
from xmppd.core.roster.rosters import Roster
from xmppd.store.cache.notices import Notice, parse

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

A = "a@x"

UNREADABLE = {
    "empty": b"",
    "rubbish": b"rubbish",
    "no-utf-8": b"a node - 0 \xff@x",
    "another-kind": b"z node - 0 a@x",
    "no-kind": b" node - 0 a@x",
    "two-kinds": b"cd node - 0 a@x",
    "no-number": b"d node - one a@x",
}


def events(caplog, name):
    return [record for record in caplog.records if record.msg == name]


async def is_told(node: Node, by: Node, account: str) -> None:
    by.cache.publish_account(account)
    await node.until(lambda: ("account", account) in node.notices.all)


async def test_a_notice_is_read_as_it_was_written():
    notice = Notice("d", "node", "node.1", -1, "somebody with spaces@x")
    assert parse(notice.text.encode()) == notice


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_cannot_be_read_may_have_said_anything(nodes, shared_server, caplog, data):
    first, second = nodes
    await second.load(A)
    assert ("everything",) not in second.notices.all
    shared_server.ask("PUBLISH", second.cache._channel, data)
    await second.until(lambda: ("everything",) in second.notices.all)
    assert second.rosters.cached(A) is None
    await is_told(second, first, A)
    assert second.stats.notices_unreadable == 1
    assert second.stats.channel_losses == 0
    assert len(events(caplog, "notice-unreadable")) == len(nodes)


async def test_a_flood_of_them_is_taken_together(make_nodes, shared_server, caplog, monkeypatch):
    monkeypatch.setattr("xmppd.store.cache.redis.UNREADABLE_SECONDS", 2.0)
    (node,) = await make_nodes(shared_server.url, 1)
    with shared_server.client as client, client.pipeline(transaction=False) as flood:
        for _ in range(500):
            flood.publish(node.cache._channel, b"\x1b[2J" + b"x" * 1000)
        flood.execute()
    await node.until(lambda: node.stats.notices_unreadable == 500)
    assert node.notices.all.count(("everything",)) == 1
    await node.until(lambda: node.notices.all.count(("everything",)) == 2)
    await asyncio.sleep(2.5)
    assert node.notices.all.count(("everything",)) == 2, "there were no more"
    lines = events(caplog, "notice-unreadable")
    assert [line.count for line in lines] == [1, 499]
    assert lines[0].notice == r"\x1b[2J" + "x" * 96


@pytest.mark.parametrize("data", [b"rubbish", b"e node - 0 -"], ids=["unreadable", "everything"])
async def test_what_may_have_been_another_begin_overtakes_a_write(nodes, shared_server, data):
    """The roster may have been changed by another node between this one's finish and its keeping it."""
    node = nodes[0]
    write = await node.cache.begin(A)
    shared_server.ask("PUBLISH", node.cache._channel, data)
    await node.until(lambda: ("everything",) in node.notices.all)
    assert not write.is_alone
    assert not await node.cache.finish(write, 1, pack(Roster(A, 1)))


async def test_a_lost_channel_overtakes_a_write(make_nodes, own_server):
    (node,) = await make_nodes(own_server.url, 1)
    write = await node.cache.begin(A)
    own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await node.until(lambda: node.stats.channel_losses == 1 and node.cache.is_heard)
    assert not write.is_alone


def once_broken(monkeypatch, owner, name):
    """The first call raises what no caller of Redis expects. The event returned is set then."""
    whole, broke = getattr(owner, name), asyncio.Event()

    def broken(*args):
        if broke.is_set():
            return whole(*args)
        broke.set()
        raise AttributeError("a mistake")

    monkeypatch.setattr(owner, name, broken)
    return broke


async def works_again(first, second, caplog):
    for node in (first, second):
        await node.until(lambda n=node: n.cache.counters["up"] == n.cache.counters["heard"] == 1)
    await is_told(second, first, "somebody@x")
    await is_told(first, second, "else@x")
    written = await first.set(A, "c@x")
    assert await second.load(A) == written
    (line,) = events(caplog, "cache-failed")
    assert "a mistake" in str(line.exc_info[1])


async def test_a_mistake_while_redis_is_asked(nodes, caplog, monkeypatch):
    """Callers have no deadline of their own."""
    first, second = nodes
    broke = once_broken(monkeypatch, first.cache._link, "send")
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*(first.cache.read(A) for _ in range(3)))
    assert broke.is_set() and {answer.value for answer in answers} == {None}
    await works_again(first, second, caplog)


async def test_a_mistake_while_redis_is_probed(nodes, caplog, monkeypatch):
    first, second = nodes
    broke = once_broken(monkeypatch, first.cache, "_probe")
    first.cache._link.is_up = False
    first.cache.publish_account(A)
    await first.until(broke.is_set)
    await works_again(first, second, caplog)
    assert ("account", A) in second.notices.all


async def test_a_mistake_while_notices_are_heard(nodes, caplog, monkeypatch):
    first, second = nodes
    broke = once_broken(monkeypatch, first.cache, "_take")
    second.cache.publish_account(A)
    await first.until(broke.is_set)
    await first.until(lambda: ("lost",) in first.notices.all[2:])
    await works_again(first, second, caplog)


async def test_a_mistake_before_the_channel_is_open(make_nodes, own_server, caplog, monkeypatch):
    first, second = await make_nodes(own_server.url)
    broke = once_broken(monkeypatch, first.cache._place, "channel")
    own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await first.until(broke.is_set)
    await works_again(first, second, caplog)


async def test_a_mistake_at_the_end(make_nodes, shared_server, caplog, monkeypatch):
    (node,) = await make_nodes(shared_server.url, 1)
    node.cache._link.is_up = False
    node.cache._debts.owe(A)
    once_broken(monkeypatch, node.cache, "_probe")
    await node.cache.close()
    assert [line.left_out for line in events(caplog, "cache-not-told")] == [1]
    assert len(events(caplog, "cache-failed")) == 1
