"""A partition that Cassandra cannot read, because too much was deleted there, is nobody else's trouble."""

import asyncio

import pytest
from cassandra import ConsistencyLevel, ReadFailure

from xmppd.errors import StoreUnavailable
from xmppd.store._breaker import FAILURES
from xmppd.store.cassandra import link as _cassandra_link
from xmppd.store.cassandra.store import CassandraStore
from xmppd.store.table import Table

QUEUE = Table("queue", ("account",), ("id",), {"text": "text"})
TOO_MANY = "Replica(s) failed to execute read"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_quick", [True, False], ids=["at once", "with a wait"])
async def test_a_partition_that_cannot_be_read_leaves_the_others_alone(keyspace, monkeypatch, is_quick):
    store = CassandraStore(keyspace.options)
    await store.open([QUEUE])
    await store.put(QUEUE, {"account": "good", "id": "1", "text": "x"})
    ask, begin = _cassandra_link.Link._rows, _cassandra_link.Link._try_read

    def try_read(self, statement):
        if not is_quick or "bad" not in statement[1]:
            return begin(self, statement) if is_quick else None
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(ReadFailure(TOO_MANY, consistency=ConsistencyLevel.LOCAL_QUORUM))
        return None, answer

    async def rows(self, statement, *rest):
        if "bad" not in statement[1]:
            return await ask(self, statement, *rest)
        error = ReadFailure(TOO_MANY, consistency=ConsistencyLevel.LOCAL_QUORUM)
        raise StoreUnavailable(TOO_MANY) from error

    monkeypatch.setattr(_cassandra_link.Link, "_rows", rows)
    monkeypatch.setattr(_cassandra_link.Link, "_try_read", try_read)
    for _ in range(2 * FAILURES):
        with pytest.raises(StoreUnavailable, match="failed to execute"):
            await store.scan(QUEUE, ("bad",))
        assert len((await store.scan(QUEUE, ("good",))).rows) == 1
    for _ in range(2 * FAILURES):
        with pytest.raises(StoreUnavailable, match="failed to execute"):
            await store.scan(QUEUE, ("bad",))
    assert len((await store.scan(QUEUE, ("good",))).rows) == 1
    assert store.stats.breaker_opened == store.stats.retried == 0
    await store.close()
