"""Commands by HTTP: which route each has, who may use it, what goes in and out, what is refused how."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio

from xmppd.admin.commands import Command, command, commands_of
from xmppd.admin.registry import Commands
from xmppd.api.calls import calls, path_of
from xmppd.api.events import Tracks
from xmppd.errors import CommandError
from xmppd.jid import Jid
from xmppd.testing import World

WHO = {
    "all": ["*"],
    "rosters": ["roster:*"],
    "shower": ["roster:show"],
    "reader": ["*:read"],
    "writer": ["roster:write"],
    "other": ["session:kick"],
}
TOKENS = [
    {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
    for name, scopes in WHO.items()
]
PLUGIN = """
from typing import Annotated
from xmppd.plugin import CommandError, Plugin, command

class Game(Plugin):
    @command("Echo what came", reads=True)
    def echo(
        self, text: str, *, number: int = 1, ratio: float = 0.5, sure: bool = False,
        tag: Annotated[list[str] | None, "tags"] = None,
    ) -> dict:
        return {"text": text, "number": number, "ratio": ratio, "sure": sure, "tag": tag}

    @command("Break")
    def crash(self) -> None:
        raise ZeroDivisionError("secret detail")

    @command("Refuse")
    def refuse(self) -> None:
        raise CommandError("not today")
"""


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "game.py").write_text(PLUGIN)
    settings = {"http": {"tokens": TOKENS}}
    async with World(plugins=("game",), plugin_folders=(tmp_path,), settings=settings) as it:
        yield it


async def ask(
    world: World, method: str, path: str, *, token: str = "all", body: Any = None
) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    response = await world.http(method, path, token=token, body=raw)
    return response.status, json.loads(response.body) if response.body else None


@pytest.mark.asyncio
async def test_what_reads_is_a_get_and_what_writes_a_post(world: World) -> None:
    added = {"account": "alice@localhost", "contact": "bob@localhost", "name": "Bob", "group": ["friends"]}
    status, result = await ask(world, "POST", "/api/v1/roster/add", body=added)
    assert status == 200 and result
    status, rows = await ask(world, "GET", "/api/v1/roster/show?account=alice@localhost")
    assert status == 200 and [row["contact"] for row in rows] == ["bob@localhost"]
    for method, path, allowed in (
        ("POST", "/api/v1/roster/show", "GET, HEAD"),
        ("GET", "/api/v1/roster/add", "POST"),
    ):
        response = await world.http(method, path, token="all")
        assert (response.status, response.headers["Allow"]) == (405, allowed)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("token", "shows", "adds"),
    [
        ("all", True, True),
        ("rosters", True, True),
        ("shower", True, False),
        ("reader", True, False),
        ("writer", False, True),
        ("other", False, False),
    ],
)
async def test_a_token_does_what_its_scopes_say(world: World, token: str, shows: bool, adds: bool) -> None:
    body = {"account": "alice@localhost", "contact": "bob@localhost"}
    status, _ = await ask(world, "GET", "/api/v1/roster/show?account=alice@localhost", token=token)
    assert status == (200 if shows else 403)
    status, refused = await ask(world, "POST", "/api/v1/roster/add", token=token, body=body)
    assert status == (200 if adds else 403)
    if not adds:
        assert refused["detail"] == "The token has no scope roster:add."


@pytest.mark.asyncio
async def test_nobody_does_anything_without_a_token(world: World) -> None:
    for about in world.app.commands:
        method = "GET" if about.reads else "POST"
        response = await world.http(method, path_of(about))
        assert response.status == 401, about.name


@pytest.mark.asyncio
async def test_values_of_a_query_are_read_by_their_types(world: World) -> None:
    path = "/api/v1/game/echo?text=1&number=3&ratio=2&sure=true&tag=a&tag=b"
    found = {"text": "1", "number": 3, "ratio": 2.0, "sure": True, "tag": ["a", "b"]}
    assert await ask(world, "GET", path) == (200, found)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ("", "text", "game echo: text is missing"),
        ("text=x&number=three", "number", "number must be a whole number"),
        ("text=x&ratio=half", "ratio", "ratio must be a number"),
        ("text=x&sure=yes", "sure", "sure must be true or false"),
        ("text=x&text=y", "text", "text may be given once"),
        ("text=x&colour=red", "colour", "game echo: there is no parameter 'colour'"),
    ],
)
async def test_a_wrong_parameter_is_named(world: World, query: str, field: str, detail: str) -> None:
    status, refused = await ask(world, "GET", f"/api/v1/game/echo?{query}")
    assert status == 400
    assert (refused["rule"], refused["field"], refused["detail"]) == ("parameter", field, detail)


@pytest.mark.asyncio
async def test_who_may_not_is_told_by_which_rule(world: World) -> None:
    for token, status, rule in (("", 401, "token"), ("nobody", 401, "token"), ("other", 403, "scope")):
        answer = await world.http("GET", "/api/v1/user/list", token=token)
        assert (answer.status, json.loads(answer.body)["rule"]) == (status, rule)
    query = "&".join(["a=b"] * 101)
    answer = await world.http("GET", f"/api/v1/user/list?{query}", token="all")
    assert (answer.status, json.loads(answer.body)["rule"]) == (400, "query")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "body", "status", "rule", "field"),
    [
        ("user/add", {"account": "alice@localhost", "password": "x"}, 409, "account-exists", None),
        ("user/disable", {"account": "zoe@localhost"}, 404, "account-unknown", None),
        ("user/disable", {"account": "@"}, 400, "parameter", "account"),
        ("user/disable", {"account": 3}, 400, "parameter", "account"),
        ("user/disable", {}, 400, "parameter", "account"),
        ("user/disable", [1], 400, "body", None),
        ("user/disable", b"{", 400, "body", None),
        ("user/disable?account=alice@localhost", {}, 400, "body", None),
        ("game/refuse", None, 409, "refused", None),
        ("game/crash", None, 500, None, None),
        ("game/dance", None, 404, "path", None),
        ("roster/show", None, 405, "method", None),
    ],
)
async def test_a_refusal_says_which_rule_refused(
    world: World, path: str, body: Any, status: int, rule: str | None, field: str | None
) -> None:
    found, refused = await ask(world, "POST", f"/api/v1/{path}", body=body)
    assert (found, refused.get("rule"), refused.get("field")) == (status, rule, field)
    assert "secret" not in str(refused)


@pytest.mark.asyncio
async def test_a_plugin_that_goes_takes_its_commands_along(world: World, tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(PLUGIN.replace("def echo", "def repeat"))
    assert (await ask(world, "GET", "/api/v1/game/echo?text=x"))[0] == 200
    await world.app.loader.reload("game", world.app.config)
    assert (await ask(world, "GET", "/api/v1/game/echo?text=x"))[0] == 404
    assert (await ask(world, "GET", "/api/v1/game/repeat?text=x"))[0] == 200
    document = (await ask(world, "GET", "/api/v1/openapi.json", token=""))[1]
    assert "/api/v1/game/repeat" in document["paths"] and "/api/v1/game/echo" not in document["paths"]


@pytest.mark.asyncio
async def test_no_plugin_takes_what_is_the_servers_own(tmp_path: Path) -> None:
    for path in ("/api/v1/user/add", "/api", "/readyz"):
        (tmp_path / "thief.py").write_text(
            "from xmppd.plugin import Plugin, route\n"
            "class Thief(Plugin):\n"
            f"    @route('GET', '{path}', scope='')\n"
            "    def take(self, request): return 1\n"
        )
        with pytest.raises(CommandError, match="which is the server's own"):
            async with World(plugins=("thief",), plugin_folders=(tmp_path,)):
                pass


def test_the_scopes_of_a_command() -> None:
    class Some:
        @command("Look", name="roster show", reads=True)
        def show(self, account: Annotated[Jid, "whose"]) -> None: ...

        @command("Look", name="status", reads=True)
        def status(self) -> None: ...

        @command("Send", name="announce to all")
        def send(self) -> None: ...

        @command("Tell all", name="migrate give", reads=True, guarded=True)
        def give(self) -> None: ...

    found = {about.name: (path_of(about), about.scopes) for about in commands_of(Some())}
    assert found == {
        "roster show": ("/api/v1/roster/show", ("roster:show", "roster:read", "roster:*", "*:read", "*")),
        "status": ("/api/v1/status", ("status:read", "status:read", "status:*", "*:read", "*")),
        "announce to all": (
            "/api/v1/announce/to-all",
            ("announce:to-all", "announce:write", "announce:*", "*:write", "*"),
        ),
        "migrate give": ("/api/v1/migrate/give", ("migrate:give", "*")),
    }


def test_no_two_commands_have_one_path() -> None:
    known = Commands([Command("a b c", ""), Command("a b-d", ""), Command("a x", "", reads=True)])
    paths = [route.path for route, _ in calls(known, Tracks(known))]
    assert len(set(paths)) == len(paths) == 4


@pytest.mark.asyncio
async def test_keys_and_files_take_a_scope_that_names_them(world: World) -> None:
    for method, path in (
        ("GET", "/api/v1/migrate/give"),
        ("POST", "/api/v1/migrate/apply"),
        ("POST", "/api/v1/migrate/undo"),
    ):
        for token in ("reader", "writer"):
            assert (await ask(world, method, path, token=token))[0] == 403
