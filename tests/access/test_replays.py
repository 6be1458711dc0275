"""Idempotency-Key: what was asked with one is done once, whichever node is asked again."""

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from xmppd.access.replays import API_REPLAYS, DAY, MARGIN_SECONDS
from xmppd.errors import StoreTimeout
from xmppd.parts.http import HttpResponse
from xmppd.testing import World

TOKENS = [
    {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": ["*"]}
    for name in ("one", "two")
]
GAME = "game that all nodes play"
PLUGIN = """
import asyncio
import sys
import types
from xmppd.plugin import CommandError, HttpResponse, Plugin, StoreTimeout, command, route

COUNTED = sys.modules.setdefault("game that all nodes play", types.SimpleNamespace(count=0))

class Game(Plugin):
    async def start(self):
        self.gate = asyncio.Event()

    @command("Count")
    def count_up(self, *, by: int = 1) -> int:
        COUNTED.count += by
        return COUNTED.count

    @command("Wait")
    async def wait(self) -> int:
        COUNTED.count += 1
        mine = COUNTED.count
        if mine == 1:
            await self.gate.wait()
        return mine

    @command("Fail", name="game fail")
    def fail(self) -> None:
        COUNTED.count += 1
        raise ZeroDivisionError

    @command("Be late", name="game late")
    def late(self) -> None:
        COUNTED.count += 1
        raise StoreTimeout("late")

    @command("Refuse", name="game refuse")
    def refuse(self) -> None:
        COUNTED.count += 1
        raise CommandError(f"not today {COUNTED.count}")

    @command("Tell", name="game tell", once=True)
    def tell(self) -> str:
        return "a secret"

    @command("Say much", name="game much")
    def much(self) -> str:
        return "x" * 300_000

    @command("Look", name="game look", reads=True)
    def look(self) -> int:
        COUNTED.count += 1
        return COUNTED.count

    @route("PUT", "/things/{name}", scope="things")
    def put(self, request):
        COUNTED.count += 1
        return HttpResponse(201, b"%d" % COUNTED.count, "text/plain", {"Location": "/things/x"})
"""


@pytest_asyncio.fixture(params=[1, 2], ids=["one node", "two nodes"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "game.py").write_text(PLUGIN)
    sys.modules.pop(GAME, None)
    settings = {"http": {"tokens": TOKENS}}
    async with World(
        plugins=("game",), plugin_folders=(tmp_path,), settings=settings, nodes=request.param
    ) as it:
        yield it


async def ask(
    world: World, path: str, body: Any = None, key: str = "k", token: str = "one", node: int = -1, **more: Any
) -> HttpResponse:
    raw = b"" if body is None else json.dumps(body).encode()
    headers = {"Idempotency-Key": key} if key else {}
    path = path if path.startswith("/") else f"/api/v1/game/{path}"
    method = more.get("method", "POST")
    return await world.http(method, path, token=token, body=raw, headers=headers, node=node)


def rule(response: HttpResponse) -> tuple[int, str]:
    return response.status, json.loads(response.body).get("rule", "")


@pytest.mark.asyncio
async def test_it_is_done_once_and_answered_again(world: World) -> None:
    first = await ask(world, "count-up", {"by": 5}, node=0)
    again = await ask(world, "count-up", {"by": 5})
    assert first.body == again.body and first.status == again.status == 200
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    quoted = await ask(world, "count-up", {"by": 5}, key='"k"')
    assert quoted.headers["Idempotency-Replayed"] == "true"
    assert (await ask(world, "count-up", {"by": 5}, key="other")).body != first.body
    assert (await ask(world, "count-up", {"by": 5}, key="")).body != first.body


@pytest.mark.asyncio
async def test_keys_are_those_of_a_token(world: World) -> None:
    first = await ask(world, "count-up", node=0)
    assert (await ask(world, "count-up", token="two")).body != first.body
    assert (await ask(world, "count-up", token="x")).status == 401


@pytest.mark.asyncio
async def test_a_key_is_for_one_request(world: World) -> None:
    await ask(world, "count-up", {"by": 5}, node=0)
    for path, body in (("count-up", {"by": 6}), ("refuse", {"by": 5}), ("count-up?x=1", {"by": 5})):
        assert rule(await ask(world, path, body)) == (422, "idempotency-key-reused")
    for wrong in (" ", "x" * 256, "a b", "\u00e9"):
        assert rule(await ask(world, "count-up", key=wrong)) == (400, "idempotency-key")


@pytest.mark.asyncio
async def test_refusals_are_answered_again_and_failures_are_tried_again(world: World) -> None:
    first, again = await ask(world, "refuse", node=0), await ask(world, "refuse")
    assert first.status == 409 and first.body == again.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content_type == "application/problem+json"
    for path, status in (("fail", 500), ("late", 503)):
        before = json.loads((await ask(world, "look", key="", method="GET")).body)
        for node in (0, -1):
            assert (await ask(world, path, key=path, node=node)).status == status
        assert json.loads((await ask(world, "look", key="", method="GET")).body) == before + 3


@pytest.mark.asyncio
async def test_what_only_reads_needs_no_key(world: World) -> None:
    first = await ask(world, "look", method="GET")
    assert (await ask(world, "look", method="GET")).body != first.body


@pytest.mark.asyncio
async def test_routes_of_plugins_keep_their_headers(world: World) -> None:
    first = await ask(world, "/things/a", method="PUT", node=0)
    again = await ask(world, "/things/a", method="PUT")
    assert (again.status, again.body, again.headers["Location"]) == (201, first.body, "/things/x")
    assert again.content_type == "text/plain" and again.headers["Idempotency-Replayed"] == "true"
    assert rule(await ask(world, "/things/b", method="PUT")) == (422, "idempotency-key-reused")


@pytest.mark.asyncio
async def test_secrets_and_what_is_long_are_not_kept(world: World) -> None:
    for path in ("tell", "much"):
        assert (await ask(world, path, key=path, node=0)).status == 200
        assert rule(await ask(world, path, key=path)) == (409, "answer-not-kept")
    rows = [row async for row in everything(world)]
    assert len(rows) == 2 and "secret" not in str(rows) and len(str(rows)) < 5000


async def everything(world: World) -> AsyncIterator[dict[str, Any]]:
    for row in (await world.app.store.scan_all(API_REPLAYS)).rows:
        yield row


@pytest.mark.asyncio
async def test_nothing_kept_tells_a_key_or_a_body(world: World) -> None:
    given = {"account": "zoe@localhost", "password": "geheim"}
    assert (await ask(world, "/api/v1/user/add", given, key="number-17", node=0)).status == 200
    [row] = [row async for row in everything(world)]
    assert "geheim" not in str(row) and "number-17" not in str(row)
    assert row["asked"] != hashlib.sha256(json.dumps(given).encode()).digest()


@pytest.mark.asyncio
async def test_what_is_under_way_is_not_begun_again_and_a_dead_node_is_taken_over_from(world: World) -> None:
    first = asyncio.ensure_future(ask(world, "wait", node=0))
    while not sys.modules[GAME].count:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    under_way = await ask(world, "wait")
    assert rule(under_way) == (409, "under-way") and under_way.headers["Retry-After"] == "1"
    world.clock.seconds += 30 + MARGIN_SECONDS - 1
    assert rule(await ask(world, "wait")) == (409, "under-way")
    world.clock.seconds += 1
    taken = await ask(world, "wait")
    assert (taken.status, taken.body) == (200, b"2")
    for app in world.apps:
        app.loader.loaded[0].plugin.gate.set()
    assert (await first).body == b"1"
    assert (await ask(world, "wait", node=0)).body == b"2"


@pytest.mark.asyncio
async def test_of_many_at_once_one_is_done(world: World) -> None:
    answers = await asyncio.gather(
        *(ask(world, "count-up", node=number % len(world.apps)) for number in range(8))
    )
    done = [it for it in answers if it.status == 200 and "Idempotency-Replayed" not in it.headers]
    assert len(done) == 1
    assert {it.body for it in answers if it.status == 200} == {done[0].body}
    assert {rule(it) for it in answers if it.status != 200} <= {(409, "under-way")}


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_it_is_forgotten_after_a_day(world: World) -> None:
    first = await ask(world, "count-up", node=0)
    world.clock.seconds += DAY - 1
    assert (await ask(world, "count-up")).body == first.body
    world.clock.seconds += 1
    assert (await ask(world, "count-up")).body != first.body


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_kept_goes_out(world: World, caplog: pytest.LogCaptureFixture) -> None:
    store, put_if = world.app.store, world.app.store.put_if

    async def late(table: Any, row: Any, expect: Any, **more: Any) -> bool:
        if table is API_REPLAYS and expect is not None:
            raise StoreTimeout("late")
        return await put_if(table, row, expect, **more)

    store.put_if = late  # type: ignore[method-assign]
    assert (await ask(world, "count-up", node=0)).status == 200
    assert "answer-not-kept" in caplog.messages
    store.put_if = put_if  # type: ignore[method-assign]
    assert rule(await ask(world, "count-up", node=0)) == (409, "under-way")


@pytest.mark.asyncio
async def test_what_takes_too_long_may_be_tried_again(world: World) -> None:
    usual = world.app.routes.rules
    world.app.routes.rules = replace(usual, seconds=0.5)
    assert (await ask(world, "wait", node=0)).status == 503
    world.app.routes.rules = usual
    assert (await ask(world, "wait")).body == b"2"
