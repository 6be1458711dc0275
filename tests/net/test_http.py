"""The server's own HTTP: who is served, who is refused and how, what a client may cost."""

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import PATIENCE

from xmppd import config
from xmppd.errors import CommandError, ConfigError
from xmppd.net.http import door as doors
from xmppd.net.http.door import Door
from xmppd.section import changed
from xmppd.testing import World

API = '''
import asyncio
from xmppd.plugin import (
    PUBLIC, AccountUnknown, HttpError, HttpResponse, Plugin, StanzaError, StoreError, route
)

class Api(Plugin):
    """VERSION 1"""

    @route("GET", "/health", scope=PUBLIC)
    def health(self, request):
        return {"version": type(self).__doc__}

    @route("GET", "/rooms/{room}/guests/{guest}", scope="rooms")
    async def guest(self, request):
        return [request.params, request.query, request.caller, request.peer]

    @route("GET", "/rooms/lobby/guests/{guest}", scope="rooms")
    def lobby(self, request):
        return "lobby"

    @route("POST", "/rooms", scope="rooms", max_bytes=100)
    def make(self, request):
        return HttpResponse(201, request.json()["name"].encode(), headers={"Location": "/rooms/x"})

    @route("DELETE", "/rooms/{room}", scope="rooms")
    def remove(self, request):
        return None

    @route("POST", "/fail/{how}", scope=PUBLIC, seconds=0.2)
    async def fail(self, request):
        match request.params["how"]:
            case "refuse":
                raise HttpError(418, "short and stout", title="Teapot", spout=True)
            case "stanza":
                raise StanzaError("item-not-found", "No such room.")
            case "unknown":
                raise AccountUnknown("alice@localhost")
            case "store":
                raise StoreError("full")
            case "bug":
                raise ZeroDivisionError
            case "strange":
                raise HttpError(499)
            case "data":
                return object()
            case "slow":
                await asyncio.sleep(30)
'''
TOKENS = [
    {"name": "maker", "sha256": hashlib.sha256(b"m").hexdigest(), "scopes": ["rooms"]},
    {"name": "looker", "sha256": hashlib.sha256(b"l").hexdigest(), "scopes": ["look"]},
    {"name": "root", "sha256": hashlib.sha256(b"r").hexdigest().upper(), "scopes": ["*"]},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api.py").write_text(API)
    return tmp_path


class Site:
    """A world with a door, and a client of it."""

    def __init__(self, world: World, door: Door, client: aiohttp.ClientSession) -> None:
        self.world = world
        self.door = door
        self.client = client

    async def ask(self, method: str, path: str, token: str = "", **more: Any) -> tuple[int, Any]:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        async with self.client.request(method, path, headers=headers, **more) as response:
            self.headers = response.headers
            text = await response.text()
            is_json = response.content_type.endswith("json")
            return response.status, json.loads(text) if is_json and text else text


@asynccontextmanager
async def site(folder: Path, most: int = 256) -> AsyncIterator[Site]:
    world = World(plugins=("api",), plugin_folders=(folder,), settings={"http": {"tokens": TOKENS}})
    async with world:
        door = Door(world.app.routes, most, world.app.jobs.spawn)
        await door.open("127.0.0.1", 0, 10)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{door.port}") as client:
            yield Site(world, door, client)
        await door.close()


@pytest.mark.asyncio
async def test_routes_are_served_to_those_who_may(folder: Path) -> None:
    async with site(folder) as it:
        assert await it.ask("GET", "/health") == (200, {"version": "VERSION 1"})
        assert it.headers["Content-Type"] == "application/json"
        assert it.headers["Server"] == "xmppd"
        found = await it.ask("GET", "/rooms/a%2Fb/guests/%C3%A9?x=1&x=2&y=", "m")
        assert found == (200, [{"room": "a/b", "guest": "é"}, {"x": "2", "y": ""}, "maker", "127.0.0.1"])
        assert await it.ask("GET", "/rooms/lobby/guests/x", "r") == (200, "lobby")
        assert await it.ask("POST", "/rooms", "m", json={"name": "blue"}) == (201, "blue")
        assert it.headers["Location"] == "/rooms/x"
        assert await it.ask("DELETE", "/rooms/blue", "m") == (204, "")
        assert await it.ask("HEAD", "/health") == (200, "")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "path", "token", "status", "more"),
    [
        ("GET", "/nothing", "m", 404, {}),
        ("GET", "/", "m", 404, {}),
        ("GET", "/rooms//guests/x", "m", 404, {}),
        ("PUT", "/rooms", "m", 405, {"Allow": "POST"}),
        ("POST", "/health", "", 405, {"Allow": "GET, HEAD"}),
        ("DELETE", "/rooms/x", "", 401, {"WWW-Authenticate": "Bearer"}),
        ("DELETE", "/rooms/x", "x", 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}),
        (
            "DELETE",
            "/rooms/x",
            "l",
            403,
            {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="rooms"'},
        ),
        ("POST", "/rooms", "m", 400, {}),
        ("POST", "/fail/unknown", "", 404, {}),
        ("POST", "/fail/store", "", 503, {"Retry-After": "5"}),
        ("POST", "/fail/bug", "", 500, {}),
        ("POST", "/fail/data", "", 500, {}),
        ("POST", "/fail/slow", "", 503, {}),
        ("POST", "/fail/strange", "", 499, {}),
    ],
)
async def test_refusals_are_problems(
    folder: Path, method: str, path: str, token: str, status: int, more: dict[str, str]
) -> None:
    async with site(folder) as it:
        found, problem = await it.ask(method, path, token)
        assert (found, problem["status"]) == (status, status)
        assert (problem["type"], bool(problem["title"])) == ("about:blank", True)
        assert it.headers["Content-Type"] == "application/problem+json"
        assert {name: it.headers[name] for name in more} == more
        assert await it.ask("GET", "/health") == (200, {"version": "VERSION 1"})
        assert it.world.app.routes.refused == 1
        assert it.world.app.hooks.failures == (status == 500)


@pytest.mark.asyncio
async def test_a_token_that_is_no_text_is_not_known(folder: Path) -> None:
    async with site(folder) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.door.port)
        writer.write(b"DELETE /rooms/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        writer.close()


@pytest.mark.asyncio
async def test_a_handler_says_what_is_wrong(folder: Path) -> None:
    async with site(folder) as it:
        assert await it.ask("POST", "/fail/refuse") == (
            418,
            {
                "type": "about:blank",
                "title": "Teapot",
                "status": 418,
                "detail": "short and stout",
                "spout": True,
            },
        )
        _, problem = await it.ask("POST", "/fail/stanza")
        assert (problem["status"], problem["condition"]) == (404, "item-not-found")
        assert problem["detail"] == "No such room."


@pytest.mark.asyncio
async def test_a_body_has_a_bound_also_when_its_length_is_not_told(folder: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 50

    async with site(folder) as it:
        for body in (b"x" * 101, pieces()):
            status, problem = await it.ask("POST", "/rooms", "m", data=body)
            assert (status, problem["detail"]) == (413, "The body may have at most 100 bytes.")
        status, _ = await it.ask("POST", "/rooms", "m", data=b"x", headers={"Content-Encoding": "gzip"})
        assert status == 415


@pytest.mark.asyncio
async def test_the_door_stays_open_while_plugins_are_loaded_again(folder: Path) -> None:
    async with site(folder) as it:
        slow = asyncio.create_task(it.ask("GET", "/rooms/x/guests/y", "m"))
        (folder / "api.py").write_text(API.replace("VERSION 1", "VERSION 2"))
        assert await it.world.app.loader.load(it.world.config) == ["api"]
        assert await it.ask("GET", "/health") == (200, {"version": "VERSION 2"})
        assert (await slow)[0] == 200
        none = changed(it.world.config.plugins, enabled=())
        await it.world.app.loader.load(changed(it.world.config, plugins=none))
        assert (await it.ask("GET", "/health"))[0] == 404


# on the wire


async def spoken(it: Site, data: bytes) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.door.port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
)
async def test_what_is_no_http_or_too_much_of_it_is_refused(folder: Path, data: bytes, caplog: Any) -> None:
    async with site(folder) as it:
        answer = await spoken(it, data)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
        assert b"application/problem+json" in answer
        assert not caplog.records


@pytest.mark.asyncio
async def test_who_says_nothing_is_sent_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "HEADER_SECONDS", 0.1)
    async with site(folder) as it:
        assert await spoken(it, b"GET /health HTTP/1.1\r\nHost: x\r\n") == b""
        body = b"POST /fail/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf"
        assert b" 503 " in await spoken(it, body)


@pytest.mark.asyncio
async def test_more_connections_wait(folder: Path) -> None:
    async with site(folder, most=1) as it:
        ask = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        first, second = [await asyncio.open_connection("127.0.0.1", it.door.port) for _ in range(2)]
        first[1].write(ask)
        await first[0].readuntil(b"}")
        second[1].write(ask)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second[0].readuntil(b"}"), 0.2)
        first[1].close()
        await asyncio.wait_for(second[0].readuntil(b"}"), PATIENCE)
        second[1].close()


@pytest.mark.asyncio
async def test_nothing_listens_when_it_is_closed(folder: Path) -> None:
    async with site(folder) as it:
        port = it.door.port
    with socket.socket() as found:
        assert found.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.asyncio
async def test_who_only_keeps_a_connection_is_not_waited_for(folder: Path) -> None:
    async with site(folder) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.door.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        closing = asyncio.ensure_future(it.door.close())
        for _ in range(50):
            await asyncio.sleep(0)
        assert closing.done()
        assert await reader.read() is not None
        writer.close()


# at load


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"GET", "/health"', '"FETCH", "/health"', "'FETCH' is none of DELETE"),
        ('"/health"', '"health"', "must be like"),
        ('"/health"', '"/health/"', "must be like"),
        ('"/health"', '"/he{alth}"', "neither text nor {name}"),
        ('"GET", "/health"', '"DELETE", "/rooms/{other}"', "and so does Api.health in"),
    ],
)
async def test_routes_that_cannot_be_served_are_refused(
    folder: Path, old: str, new: str, message: str
) -> None:
    (folder / "api.py").write_text(API.replace(old, new))
    with pytest.raises(CommandError) as caught:
        async with site(folder):
            pass
    assert f"{folder}/api.py: Api." in str(caught.value)
    assert message in str(caught.value)


def test_tokens_are_checked_and_may_be_files(tmp_path: Path) -> None:
    digest = tmp_path / "digest"
    digest.write_text(TOKENS[0]["sha256"] + "\n")
    file = tmp_path / "xmppd.yaml"
    file.write_text(f"http:\n  tokens:\n    - {{name: a, sha256_file: {digest}, scopes: [x]}}\n")
    assert config.load(file, {}).http.tokens[0].sha256.value == TOKENS[0]["sha256"]
    for wrong in ("{name: a, sha256: abc, scopes: [x]}", "{name: a b, sha256_file: digest, scopes: [x]}"):
        file.write_text(f"http:\n  tokens:\n    - {wrong}\n")
        with pytest.raises(ConfigError):
            config.load(file, {})
