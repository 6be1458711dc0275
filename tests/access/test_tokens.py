"""Tokens made by command: who they let in, what they may do, when they count no more."""

import hashlib
import json
from typing import Any

import pytest

from xmppd.access import tokens as module
from xmppd.access.callers import is_scope
from xmppd.access.tokens import API_TOKENS, BEARER, FRESH_SECONDS, STALE_SECONDS, USED_SECONDS
from xmppd.admin.commands import Caller
from xmppd.errors import CommandError, StoreUnavailable
from xmppd.testing import World

SETTINGS = {
    "http": {
        "tokens": [
            {"name": "fixed", "sha256": hashlib.sha256(b"fixed").hexdigest(), "scopes": ["api-token:*"]}
        ]
    }
}
PATH = "/api/v1/user/show?account=alice@localhost"


async def made(world: World, name: str = "maker", *scopes: str, days: int = 90, node: int = 0) -> str:
    arguments = {"name": name, "scope": [*(scopes or ("user:show",))], "days": days}
    result = await world.apps[node].commands.call("api-token add", arguments, Caller("socket", "root"))
    await world.settle()
    token: str = result["token"]
    return token


async def status(world: World, token: str, node: int = 0) -> int:
    return (await world.http("GET", PATH, token=token, node=node)).status


async def rows(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await world.app.commands.call("api-token list", {})
    return found


@pytest.mark.asyncio
async def test_a_token_lets_in_until_it_is_revoked() -> None:
    async with World() as world:
        assert await status(world, "xmppd_nothing") == 401
        token = await made(world)
        assert await status(world, token) == 200
        assert (await world.http("POST", "/api/v1/user/add", token=token)).status == 403
        assert await status(world, token + "x") == await status(world, token[:-1]) == 401
        assert await world.app.commands.call("api-token revoke", {"name": "maker"}) == [{"revoked": "maker"}]
        assert await status(world, token) == 401


@pytest.mark.asyncio
async def test_only_its_sum_is_kept_and_it_is_shown_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with World(settings=SETTINGS) as world:
        body = json.dumps({"name": "maker", "scope": ["api-token:list"]}).encode()
        refused = await world.http("POST", "/api/v1/api-token/add", token="fixed", body=body)
        assert refused.status == 403 and json.loads(refused.body)["rule"] == "scope"
        body = json.dumps({"name": "maker", "scope": ["api-token:*"]}).encode()
        response = await world.http("POST", "/api/v1/api-token/add", token="fixed", body=body)
        assert response.headers["Cache-Control"] == "no-store"
        token = json.loads(response.body)["token"]
        row = await world.app.store.get(API_TOKENS, (BEARER, "maker"))
        assert row is not None and row["digest"] == hashlib.sha256(token.encode()).digest()
        listed = await world.http("GET", "/api/v1/api-token/list", token=token)
        assert [it["name"] for it in json.loads(listed.body)] == ["maker", "fixed"]
        assert token not in f"{row}{listed.body!r}{caplog.text}"


@pytest.mark.asyncio
async def test_it_ends_when_its_days_are_over_and_its_name_is_free_then() -> None:
    async with World() as world:
        token, lasting = await made(world, days=1), await made(world, "lasting", days=0)
        await world.advance(86_399)
        assert await status(world, token) == 200
        await world.advance(1)
        assert [await status(world, it) for it in (token, lasting)] == [401, 200]
        assert {it["name"]: it["state"] for it in await rows(world)} == {"maker": "ended", "lasting": "good"}
        other = await made(world)
        assert [await status(world, it) for it in (token, other)] == [401, 200]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"days": -1}, "days"),
        ({"days": 4000}, "days"),
        ({"scope": []}, "scope"),
        ({"scope": ["*:kick"]}, "scope"),
        ({"scope": ["roster:read "]}, "scope"),
        ({"scope": ["Roster:read"]}, "scope"),
        ({"scope": ["roster:read:all"]}, "scope"),
        ({"scope": [""]}, "scope"),
    ],
)
async def test_what_is_wrong_is_named(given: dict[str, Any], field: str) -> None:
    async with World() as world:
        arguments = {"name": "maker", "scope": ["roster:read"], **given}
        with pytest.raises(CommandError) as refused:
            await world.app.commands.call("api-token add", arguments)
        assert (refused.value.field, refused.value.rule) == (field, "parameter")


@pytest.mark.asyncio
async def test_a_name_is_taken_once_and_a_fixed_one_never() -> None:
    async with World(settings=SETTINGS) as world:
        await made(world)
        for name in ("maker", "fixed"):
            with pytest.raises(CommandError, match="already") as refused:
                await made(world, name)
            assert refused.value.rule == "api-token-exists"
        with pytest.raises(CommandError, match="in the configuration"):
            await world.app.commands.call("api-token revoke", {"name": "fixed"})
        with pytest.raises(CommandError, match="not known"):
            await world.app.commands.call("api-token revoke", {"name": "nobody"})


@pytest.mark.asyncio
async def test_nobody_gives_what_he_has_not() -> None:
    async with World() as world:
        by = Caller("http", "some", "", frozenset(["api-token:add", "*:read", "user:*"]))
        for scope in ("*", "*:write", "roster:show", "rooms"):
            with pytest.raises(CommandError, match="cannot give it"):
                await world.app.commands.call("api-token add", {"name": "x", "scope": [scope]}, by)
        given = {"name": "x", "scope": ["*:read", "user:*"]}
        assert (await world.app.commands.call("api-token add", given, by))["scopes"] == ["*:read", "user:*"]


@pytest.mark.asyncio
async def test_a_request_asks_the_store_for_nothing() -> None:
    async with World() as world:
        token = await made(world)
        await status(world, token)
        asked = 0
        scan = world.app.store.scan

        async def counted(*args: Any, **more: Any) -> Any:
            nonlocal asked
            asked += args[0] is API_TOKENS
            return await scan(*args, **more)

        world.app.store.scan = counted  # type: ignore[method-assign]
        for _ in range(5):
            assert await status(world, token) == 200
            assert await status(world, "xmppd_nothing") == 401
        assert asked == 0
        await world.advance(FRESH_SECONDS)
        assert [await status(world, token) for _ in range(5)] == [200] * 5
        assert asked == 1


@pytest.mark.asyncio
async def test_while_the_store_is_away_those_of_the_configuration_go_on() -> None:
    async with World(settings=SETTINGS) as world:
        token = await made(world)
        assert await status(world, token) == 200

        async def away(*args: Any, **more: Any) -> Any:
            raise StoreUnavailable("away")

        world.app.store.scan = away  # type: ignore[method-assign]
        await world.advance(STALE_SECONDS - 1)
        assert await status(world, token) == 200
        await world.advance(1)
        assert await status(world, token) == 503
        assert await status(world, "nothing") == 401
        path = "/api/v1/api-token/revoke"
        fixed = await world.http("POST", path, token="fixed", body=b'{"name": "x"}')
        assert fixed.status == 404


@pytest.mark.asyncio
async def test_its_last_use_is_written_seldom_and_brings_nothing_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World() as world:
        token = await made(world)
        await status(world, token)
        first = (await rows(world))[0]["used"]
        assert first is not None
        await world.advance(USED_SECONDS - 1)
        await status(world, token)
        assert (await rows(world))[0]["used"] == first
        await world.advance(1)
        # It is revoked elsewhere, and this node was not told.
        row = await world.app.store.get(API_TOKENS, (BEARER, "maker"))
        assert row is not None
        monkeypatch.setattr(module, "FRESH_SECONDS", USED_SECONDS)
        monkeypatch.setattr(module, "STALE_SECONDS", USED_SECONDS)
        await world.app.store.delete_if(API_TOKENS, (BEARER, "maker"), {"id": row["id"]})
        assert await status(world, token) == 200
        await world.settle()
        assert await world.app.store.get(API_TOKENS, (BEARER, "maker")) is None


@pytest.mark.asyncio
async def test_two_nodes_revoke_as_one() -> None:
    async with World(nodes=2) as world:
        token = await made(world, node=1)
        assert [await status(world, token, node) for node in (0, 1)] == [200, 200]
        await world.app.commands.call("api-token revoke", {"name": "maker"})
        assert [await status(world, token, node) for node in (0, 1)] == [401, 401]


@pytest.mark.asyncio
async def test_a_node_that_was_not_told_finds_out_within_seconds() -> None:
    async with World(nodes=2) as world:
        token = await made(world)
        assert [await status(world, token, node) for node in (0, 1)] == [200, 200]
        world.apps[0].everywhere.cluster = None
        await world.app.commands.call("api-token revoke", {"name": "maker"})
        assert [await status(world, token, node) for node in (0, 1)] == [401, 200]
        await world.advance(STALE_SECONDS)
        assert await status(world, token, 1) == 401


def test_forms_of_scopes() -> None:
    good = ("*", "*:read", "*:write", "roster:*", "roster:read", "roster:show", "announce:to-all", "rooms")
    assert [it for it in good if not is_scope(it)] == []
    bad = ("", "*:*", "*:show", "roster:", ":read", "a:b:c", "roster read", "ROSTER:read", "x" * 101, "é")
    assert [it for it in bad if is_scope(it)] == []
