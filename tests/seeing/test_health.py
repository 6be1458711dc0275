"""Whether clients should be sent to a server, as those are told who ask by HTTP."""

import asyncio
import json

import pytest

from xmppd.errors import StoreUnavailable
from xmppd.seeing.health import FRESH_SECONDS, StoreHealth
from xmppd.testing import World


async def ask(world, path, **headers):
    async def nothing(most):
        return b""

    return await world.app.routes.serve("GET", path, headers, nothing, "127.0.0.1")


@pytest.mark.asyncio
async def test_a_process_that_answers_is_alive() -> None:
    async with World() as world:
        world.app.seeing.health.checks["cluster"] = lambda: "not yet"
        answer = await ask(world, "/healthz")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
        assert (await ask(world, "/livez")).status == 404


@pytest.mark.asyncio
async def test_clients_should_come_while_every_check_is_well() -> None:
    async with World() as world:
        said = "ok"
        world.app.seeing.health.checks["cluster"] = lambda: said
        answer = await ask(world, "/readyz")
        assert answer.status == 200
        assert json.loads(answer.body) == {"status": "ready", "checks": {"cluster": "ok", "store": "ok"}}
        said = "the other nodes are not all met"
        answer = await ask(world, "/readyz")
        assert answer.status == 503
        assert json.loads(answer.body) == {"status": "not-ready", "checks": {"cluster": said, "store": "ok"}}


class Stores:
    """A store that answers as it is told to, and counts."""

    def __init__(self, error=None):
        self.asked = 0
        self.error = error

    async def get(self, table, key):
        self.asked += 1
        if self.error is not None:
            raise self.error


@pytest.mark.asyncio
async def test_the_reason_is_what_the_store_says() -> None:
    found = await StoreHealth(Stores(StoreUnavailable("no quorum")), lambda: 0.0).look()
    assert found == "the store does not answer: no quorum"


@pytest.mark.asyncio
async def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Stores):
        async def get(self, table, key):
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("xmppd.seeing.health.STORE_SECONDS", 0.01)
    found = await StoreHealth(Hanging(), lambda: 0.0).look()
    assert found == "the store did not answer within 0.01 s"


@pytest.mark.asyncio
async def test_the_store_is_not_asked_by_everybody_who_asks() -> None:
    store, now = Stores(), 100.0
    health = StoreHealth(store, lambda: now)
    assert await asyncio.gather(*(health.look() for _ in range(100))) == ["ok"] * 100
    assert store.asked == 1
    now += FRESH_SECONDS
    store.error = StoreUnavailable("gone")
    assert await health.look() != "ok"
    assert store.asked == 2
