"""How many requests there may be: of a token, and of an address without a good one."""

import contextlib
import hashlib
import json

import pytest

from xmppd.net.http import pace
from xmppd.parts.http import HttpError, HttpResponse
from xmppd.testing import World

SETTINGS = {
    "http": {
        "tokens": [
            {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": ["user:list"]}
            for name in ("one", "two")
        ],
        "rate": 0.5,
        "burst": 3,
        "strangers_rate": 1,
        "strangers_burst": 2,
    }
}
PATH = "/api/v1/user/list"


async def ask(world: World, token: str = "", path: str = PATH, peer: str = "192.0.2.1") -> HttpResponse:
    return await world.http("GET", path, token=token, peer=peer)


async def statuses(world: World, count: int, token: str = "", path: str = PATH, **more: str) -> list[int]:
    return [(await ask(world, token, path, **more)).status for _ in range(count)]


@pytest.mark.asyncio
async def test_a_token_has_its_pace_wherever_it_comes_from() -> None:
    async with World(settings=SETTINGS) as world:
        assert await statuses(world, 2, "one") == [200] * 2
        assert await statuses(world, 2, "one", peer="192.0.2.2") == [200, 429]
        refused = await ask(world, "one")
        assert refused.headers["Retry-After"] == "2"
        assert json.loads(refused.body)["rule"] == "rate"
        assert await statuses(world, 1, "two") == [200]
        await world.advance(2)
        assert await statuses(world, 2, "one") == [200, 429]


@pytest.mark.asyncio
async def test_what_a_token_may_not_do_counts_too() -> None:
    async with World(settings=SETTINGS) as world:
        assert await statuses(world, 4, "one", "/api/v1/status") == [404] * 2 + [429] * 2
        assert await statuses(world, 4, "one", "/api/v1/user/keys") == [403] * 3 + [429]


@pytest.mark.asyncio
async def test_strangers_have_the_pace_of_their_address() -> None:
    async with World(settings=SETTINGS) as world:
        assert await statuses(world, 3, "wrong") == [401, 401, 429]
        for path in (PATH, "/nothing", "/api/v1/openapi.json", "/api/v1/user/add"):
            assert await statuses(world, 1, path=path) == [429], path
        assert await statuses(world, 3, "wrong", peer="192.0.2.2") == [401, 401, 429]
        assert await statuses(world, 1, "one") == [200]
        for path in ("/healthz", "/readyz"):
            assert await statuses(world, 3, path=path) == [200] * 3
        await world.advance(1)
        assert await statuses(world, 2, "wrong") == [401, 429]


@pytest.mark.asyncio
async def test_a_network_of_ipv6_is_one_address() -> None:
    async with World(settings=SETTINGS) as world:
        for last, status in enumerate((401, 401, 429)):
            assert (await ask(world, peer=f"2001:db8::{last + 1}")).status == status
        assert (await ask(world, peer="2001:db8:0:1::1")).status == 401


@pytest.mark.asyncio
async def test_without_a_rate_there_is_no_limit() -> None:
    settings = {"http": {**SETTINGS["http"], "rate": 0, "strangers_rate": 0}}
    async with World(settings=settings) as world:
        assert await statuses(world, 10, "one") == [200] * 10
        assert await statuses(world, 10) == [401] * 10


def test_over_time_nobody_has_more_than_the_rate_on_however_many_nodes() -> None:
    rate, burst, seconds, clock = 5.0, 20, 200, [0.0]
    nodes = [pace.Pace(rate, burst, lambda: clock[0], lambda: None) for _ in range(6)]
    taken = 0
    for tick in range(seconds * 10):
        clock[0] = tick / 10
        for node in nodes:
            with contextlib.suppress(HttpError):
                while True:
                    node.take("he")
                    taken += 1
        if tick % 10 == 9:
            news = [(node, node.news) for node in nodes]
            for node in nodes:
                node.news = {}
            for node in nodes:
                for other, said in news:
                    if other is not node:
                        node.heard(said)
    burst_of_each = len(nodes) * (burst + rate)
    assert rate * seconds * 0.9 <= taken <= rate * seconds + burst_of_each, taken


def test_who_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "REMEMBERED", 5)
    paces = pace.Pace(1.0, 1, lambda: 0.0)
    for number in range(50):
        paces.take(str(number))
    assert len(paces._buckets) == 5


@pytest.mark.asyncio
async def test_what_is_taken_on_one_node_counts_on_the_others(redis_url: str) -> None:
    settings = {**SETTINGS, "cache": {"redis": redis_url, "prefix": "test-pace"}}
    async with World(settings=settings, nodes=2) as world:

        async def on(node: int, count: int, token: str = "") -> list[int]:
            responses = [
                await world.http("GET", PATH, token=token, peer="192.0.2.1", node=node) for _ in range(count)
            ]
            return [response.status for response in responses]

        assert await on(0, 3, "one") == [200] * 3
        assert await on(0, 2) == [401] * 2
        await world.advance(1)
        assert await on(1, 1, "one") == [429], "they were taken there, and the rate is one in 2 s"
        assert await on(1, 1) == [429]
        assert await on(1, 1, "two") == [200]
        await world.advance(6)
        assert await on(1, 2, "one") == [200] * 2
        world.app.doors.apply(world.config)
        await world.advance(1)
        assert await on(0, 1, "one") == [200]
        await world.advance(1)
        assert world.app.routes._tokens.news == {}


@pytest.mark.asyncio
async def test_of_so_many_others_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "TOLD", 2)
    taken = pace.Pace(1.0, 10, lambda: 0.0, lambda: None)
    for who in "abcab":
        taken.take(who)
    assert taken.news == {"a": 2, "b": 2}
