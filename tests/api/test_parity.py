"""Every command by every door: the same arguments give the same results and the same refusals."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree.ElementTree import Element

import pytest

from plugins.adhoc.forms import shown, texts_of
from xmppd import ns
from xmppd.admin.client import follow, request
from xmppd.admin.socket import AdminSocket
from xmppd.api.calls import path_of
from xmppd.errors import CommandError
from xmppd.net.certificates import development_certificate
from xmppd.testing import Client, World

ALICE, BOB, ZOE = "alice@localhost", "bob@localhost", "zoe@localhost"
PLUGINS = (
    "archive",
    "offline",
    "announce",
    "blocking",
    "adhoc",
    "webhooks",
    "players",
    "game_events",
    "rich_presence",
    "invites",
    "game_login",
    "moderation",
)
ROOT = {"adhoc": {"roles": {"root": {"accounts": ["root@localhost"], "scopes": ["*"]}}}}
ACCOUNTS = ("alice", "bob", "carol", "root")
TOKEN = "a" * 32
SUM = "3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547"
WALK: list[tuple[str, dict[str, Any]]] = [
    ("commands", {}),
    ("user add", {"account": ZOE, "password": "geheim"}),
    ("user add", {"account": ZOE, "password": "geheim"}),
    (
        "user add-many",
        {"accounts": '{"account": "yan@localhost", "password": "geheim"}', "skip_existing": True},
    ),
    ("user add-many", {"accounts": "nothing"}),
    ("user passwd", {"account": ZOE, "password": "anders", "keep_sessions": True}),
    ("user disable", {"account": ZOE}),
    ("user show", {"account": ZOE}),
    ("user enable", {"account": ZOE}),
    ("user list", {"domain": "localhost", "without_password": False}),
    ("user keys", {}),
    ("roster add", {"account": ALICE, "contact": BOB, "name": "Bob", "group": ["one", "two"]}),
    ("roster show", {"account": ALICE}),
    ("roster log", {"account": ALICE}),
    ("roster check", {"account": ALICE}),
    ("roster repair", {"account": ALICE}),
    ("roster undo", {"account": ALICE, "version": 1}),
    ("roster remove", {"account": ALICE, "contact": BOB}),
    ("roster befriend", {"one": ALICE, "other": BOB}),
    ("presence show", {"account": ALICE}),
    ("presence why", {"owner": BOB, "viewer": ALICE}),
    ("message why-not-delivered", {"id": "x", "sender": ALICE}),
    ("log level", {"module": "core.router", "level": "debug", "minutes": 2}),
    ("log level", {"module": "core.route", "level": "debug"}),
    ("log level", {"module": "core.router", "level": "loud"}),
    ("log levels", {}),
    ("log reset", {}),
    ("roster part", {"one": ALICE, "other": BOB}),
    ("roster befriend-many", {"pair": [f"{ALICE} {BOB}", f"{BOB} {ZOE}", f"{BOB} nobody@localhost"]}),
    ("roster part-many", {"pair": [f"{ALICE} {BOB}"]}),
    ("roster befriend-many", {"pair": [f"{ALICE} {ALICE}"]}),
    ("block add", {"account": ALICE, "address": "spam@example.org"}),
    ("block list", {"account": ALICE}),
    ("block remove", {"account": ALICE, "address": "spam@example.org"}),
    ("block reports", {}),
    ("session list", {"most": 10}),
    ("session list", {"account": "root@localhost", "address": "127.0.0.0/8", "state": "unavailable"}),
    ("session list", {"client": "nobody's", "older": 60, "idle": 60}),
    ("session list", {"address": "nowhere"}),
    ("session list", {"node": "nowhere"}),
    ("session show", {"address": f"{ALICE}/one"}),
    ("session show", {"address": ALICE}),
    ("session message", {"address": ALICE, "text": "hello", "subject": "you", "chat": True}),
    ("session message", {"address": ALICE, "text": " "}),
    ("session kick", {"address": ALICE}),
    ("token list", {"account": ALICE}),
    ("token revoke", {"account": ALICE}),
    ("api-token list", {}),
    ("audit list", {"since": "2001-01-01", "who": "nobody", "after": "2001-01-01T00/"}),
    ("api-token revoke", {"name": "nobody"}),
    ("announce send", {"text": "hello"}),
    ("announce send", {"text": "hello", "prefix": ["alice"], "all": True, "preview": True}),
    ("announce send", {"text": "hello", "accounts": "nobody@elsewhere"}),
    ("announce list", {}),
    ("announce cancel", {"id": "none"}),
    ("announce motd", {"text": "hello"}),
    ("announce clear", {}),
    ("archive info", {"account": ALICE}),
    ("archive prune", {"before": "2001-01-01", "all": True}),
    ("archive prune", {"before": "2001-01-01"}),
    ("archive erase", {"account": ALICE}),
    ("archive check", {}),
    ("archive export", {"file": "FOLDER/archive.jsonl"}),
    ("archive import", {"file": "FOLDER/archive.jsonl"}),
    ("player rename", {"account": ALICE, "name": "Zoe#EUW"}),
    ("player rename", {"account": BOB, "name": "zoe#euw"}),
    ("player show", {"player": "ZOE#EUW"}),
    ("player show", {"player": "Zara#EUW"}),
    ("player find", {"name": ["Zoe#EUW", "Zara#EUW"]}),
    ("player history", {"player": ALICE}),
    ("player reserve", {"name": "Zara", "why": "hers"}),
    ("player reserved", {}),
    ("player release", {"name": "Zara"}),
    ("player link", {"account": ALICE, "platform": "steam", "id": "1"}),
    ("player link", {"account": BOB, "platform": "steam", "id": "1"}),
    ("player unlink", {"account": ALICE, "platform": "steam"}),
    ("invite send", {"sender": ALICE, "to": BOB, "kind": "war", "target": "x"}),
    ("invite list", {"account": ALICE}),
    ("invite cancel", {"to": BOB, "id": "none"}),
    ("game set", {"account": ALICE, "game": "chess"}),
    ("game show", {"account": ALICE}),
    ("presence hide", {"account": ALICE, "friend": [BOB], "group": ["school"]}),
    ("presence hidden", {"account": ALICE}),
    ("presence hide", {"account": ALICE, "all": True, "friend": ["@"]}),
    ("webhook add", {"name": "bad", "url": "https://127.0.0.1/", "event": ["account.*"]}),
    ("webhook add", {"name": "bad", "url": "https://example.org/", "event": ["nothing.*"]}),
    ("webhook list", {}),
    ("webhook events", {}),
    ("webhook show", {"name": "game"}),
    ("webhook change", {"name": "game", "url": "https://example.org/"}),
    ("webhook test", {"name": "game"}),
    ("webhook rotate", {"name": "game"}),
    ("webhook pause", {"name": "game"}),
    ("webhook resume", {"name": "game"}),
    ("webhook dead list", {"name": "game"}),
    ("webhook dead replay", {"name": "game"}),
    ("webhook dead drop", {"name": "game"}),
    ("webhook remove", {"name": "game"}),
    ("game-login revoke", {"account": ALICE, "before": "2001-01-01"}),
    ("game-login revoke", {"account": ALICE, "before": "soon"}),
    ("game-login revoke-token", {"id": "t1", "issuer": "https://nobody.example"}),
    ("game-login revoke-before", {"moment": "now"}),
    ("game-login revocations", {}),
    ("moderation test", {"text": "hello", "lang": "en"}),
    ("moderation reload", {}),
    ("moderation sanctions", {"account": ALICE, "all": True}),
    ("moderation sanction", {"account": ALICE, "kind": "burn"}),
    ("moderation sanction", {"account": ALICE, "kind": "mute", "minutes": 0.0, "scope": "all"}),
    ("moderation lift", {"account": ALICE, "id": "none"}),
    ("moderation note", {"account": ALICE, "id": "none", "note": "why"}),
    ("moderation report", {"reported": BOB, "account": ALICE, "reason": "x" * 201}),
    ("moderation cases", {"state": "all", "days": 2, "reported": BOB, "limit": 5}),
    ("moderation cases", {"state": "lost"}),
    ("moderation case", {"id": "none"}),
    ("moderation claim", {"id": "none"}),
    ("moderation release", {"id": "none", "moderator": "mia"}),
    ("moderation decide", {"id": "none", "verdict": "perhaps"}),
    ("moderation decide", {"id": "none", "verdict": "upheld", "sanction": "mute", "minutes": 5.0}),
    ("game-events group-add", {"name": "blue", "to": ["alice", "nobody@localhost"]}),
    ("game-events group-add", {"name": "b l u e", "to": ["alice"]}),
    ("game-events group-show", {"name": "blue"}),
    (
        "game-events push",
        {"resource": "wallet", "version": 7, "to": ["bob"], "group": ["blue"], "payload": "{}"},
    ),
    ("game-events push", {"resource": "wallet", "version": 6, "players": "alice"}),
    ("game-events push", {"resource": "wallet", "version": -1, "to": ["bob"]}),
    ("game-events show", {"account": ALICE}),
    ("game-events group-remove", {"name": "blue", "all": True}),
    ("doctor", {"topic": ["settings"], "wrong": True}),
    ("doctor", {"topic": ["weather"]}),
    ("certificate list", {}),
    ("certificate reload", {}),
    ("store check", {}),
    ("store migrate", {}),
    ("migrate runs", {}),
    ("migrate apply", {"file": "FOLDER/missing", "run": "first"}),
    ("migrate undo", {"run": "first"}),
    ("user remove", {"account": ZOE}),
    ("user remove", {"account": ZOE}),
    ("account erase", {"account": ZOE}),
    ("account receipt", {"account": ZOE}),
    ("account rename", {"old": ALICE, "new": BOB}),
    ("account rename", {"old": ALICE, "new": ZOE}),
    ("account renamed", {}),
    ("account rename", {"old": ALICE, "new": ZOE, "undo": True}),
]
FRIENDS = ("adhoc", "friends")
"""Where these are at work others make no friends."""
FRIENDS_WALK: list[tuple[str, dict[str, Any]]] = [
    ("roster befriend", {"one": ALICE, "other": BOB}),
    ("friend befriend", {"one": ALICE, "other": "bob@localhost"}),
    ("friend list", {"player": ALICE}),
    ("friend part", {"one": ALICE, "other": BOB}),
    ("friend request", {"one": ALICE, "other": BOB, "text": "hi"}),
    ("friend cancel", {"one": ALICE, "other": BOB}),
    ("friend cancel", {"one": ALICE, "other": BOB}),
    ("friend request", {"one": ALICE, "other": BOB}),
    ("friend decline", {"one": BOB, "other": ALICE}),
    ("friend request", {"one": BOB, "other": ALICE}),
    ("friend accept", {"one": ALICE, "other": BOB}),
    ("friend befriend-many", {"pair": [f"{ALICE} {BOB}", f"{ALICE} nobody@localhost"]}),
    ("friend part-many", {"pair": [f"{ALICE} {BOB}"]}),
    ("friend replace", {"player": ALICE, "friend": [BOB]}),
    ("friend import", {"player": ALICE, "platform": "steam", "id": ["9"]}),
    ("friend played", {"player": [ALICE, BOB], "what": "ranked"}),
    ("friend check", {"player": ALICE, "repair": True}),
    ("friend part", {"one": ALICE, "other": BOB}),
]
NOT_ALIKE = {
    "account export",
    "store backup",
    "store digest",
    "api-token add",
    "migrate folder",
    "migrate give",
    "migrate names",
    "migrate states",
    "store info",
}
"""Their results name folders, hold random numbers, are files, or are in an order of the store's own."""

FOLLOWED: list[tuple[str, dict[str, Any]]] = [("trace", {"account": ALICE}), ("top", {}), ("event watch", {})]
"""Those that go on until their caller leaves."""

Door = Callable[[str, dict[str, Any]], Awaitable[Any]]


def refused(error: CommandError) -> dict[str, Any]:
    return {"refused": str(error)}


@asynccontextmanager
async def registry(world: World, folder: Path, root: Client) -> AsyncIterator[Door]:
    async def call(name: str, arguments: dict[str, Any]) -> Any:
        try:
            return json.loads(json.dumps(await world.app.commands.call(name, arguments)))
        except CommandError as error:
            return refused(error)

    yield call


@asynccontextmanager
async def by_socket(world: World, folder: Path, root: Client) -> AsyncIterator[Door]:
    socket = AdminSocket(folder / "xmppd.sock", world.app.commands)
    await socket.start()

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        try:
            return await asyncio.to_thread(request, socket.path, name, arguments)
        except CommandError as error:
            return refused(error)

    yield call
    await socket.close()


@asynccontextmanager
async def by_http(world: World, folder: Path, root: Client) -> AsyncIterator[Door]:
    async def call(name: str, arguments: dict[str, Any]) -> Any:
        about = {it.name: it for it in world.app.commands}[name]
        if about.reads:
            fields = {
                key: json.dumps(it) if isinstance(it, bool | int) else it for key, it in arguments.items()
            }
            path = f"{path_of(about)}?{urlencode(fields, doseq=True)}"
            response = await world.http("GET", path, token=TOKEN)
        else:
            body = json.dumps(arguments).encode()
            response = await world.http("POST", path_of(about), token=TOKEN, body=body)
        result = json.loads(response.body)
        return result if response.status == 200 else {"refused": result["detail"]}

    yield call


@asynccontextmanager
async def by_adhoc(world: World, folder: Path, root: Client) -> AsyncIterator[Door]:
    async def step(name: str, inner: str, **attrs: str) -> Element:
        given = "".join(f" {key}='{value}'" for key, value in attrs.items())
        payload = f"<command xmlns='{ns.COMMANDS}' node='{name}'{given}>{inner}</command>"
        answer = await root.ask("set", payload, to="localhost")
        error = answer.find("{*}error/{*}text")
        return answer[0] if error is None else error

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        answer, left = await step(name, ""), filled(arguments)
        while answer.get("status") == "executing":
            inner, left = left, ""
            answer = await step(name, inner, sessionid=answer.get("sessionid", ""))
        note = answer.find("{*}note[@type='error']")
        if answer.tag.endswith("text") or note is not None:
            return {"refused": answer.text if note is None else note.text}
        return texts(answer.find("{*}x"))

    yield call


def filled(arguments: Mapping[str, Any]) -> str:
    fields = "".join(
        f"<field var='{name}'>{''.join(f'<value>{text}</value>' for text in texts_of(value))}</field>"
        for name, value in arguments.items()
    )
    return f"<x xmlns='{ns.DATA_FORM}' type='submit'>{fields}</x>"


def texts(form: Element | None) -> Any:
    """What a form of results shows."""
    return None if form is None else [it.text or "" for it in form.iterfind(".//{*}value")]


def as_shown(result: Any) -> Any:
    """A result as a form shows it."""
    if isinstance(result, dict) and set(result) == {"refused"}:
        return result
    if isinstance(result, dict) and set(result) == {"rows", "counts", "total", "after", "exit_code"}:
        result = result["rows"] or None
    return texts(None if result in (None, []) and not isinstance(result, str) else shown("", result))


DOORS = {"adhoc": by_adhoc, "registry": registry, "socket": by_socket, "http": by_http}


async def walked(
    door: str, folder: Path, walk: list[tuple[str, dict[str, Any]]], plugins: tuple[str, ...]
) -> list[tuple[str, Any]]:
    """What each step of the walk gives, on a server of its own."""
    pair = development_certificate(folder.parent, ["localhost"])
    settings = {
        "http": {"tokens": [{"name": "parity", "sha256": SUM, "scopes": ["*"]}]},
        "tls": {"certificates": {"*": {"certificate": str(pair.certificate), "key": str(pair.key)}}},
    }
    world = World(accounts=ACCOUNTS, plugins=plugins, plugin_config=ROOT, settings=settings)
    async with world, DOORS[door](world, folder, await world.bind("root")) as call:
        steps = []
        for name, arguments in walk:
            given = {
                key: it.replace("FOLDER", str(folder)) if isinstance(it, str) else it
                for key, it in arguments.items()
            }
            result = json.dumps(await call(name, given)).replace(str(folder), "FOLDER")
            steps.append((name, json.loads(result)))
        all_ = {about.name for about in world.app.commands if not about.follows}
        left = all_ - {name for name, _ in (*WALK, *FRIENDS_WALK)} - NOT_ALIKE
        assert not left, f"no step is about {left}"
        return steps


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("walk", "plugins"), [(WALK, PLUGINS), (FRIENDS_WALK, FRIENDS)], ids=["all", "friends"]
)
async def test_all_doors_say_the_same(
    walk: list[tuple[str, dict[str, Any]]], plugins: tuple[str, ...], tmp_path: Path
) -> None:
    for door in DOORS:
        (tmp_path / door).mkdir()
    expected = await walked("registry", tmp_path / "registry", walk, plugins)
    assert len(expected) > 15
    for door in DOORS.keys() - {"registry"}:
        found = await walked(door, tmp_path / door, walk, plugins)
        for ours, (name, result) in zip(found, expected, strict=True):
            assert ours == (name, as_shown(result) if door == "adhoc" else result), door


@pytest.mark.asyncio
async def test_what_goes_on_begins_alike_by_each_door(tmp_path: Path) -> None:
    settings = {"http": {"tokens": [{"name": "parity", "sha256": SUM, "scopes": ["*"]}]}}
    world = World(accounts=ACCOUNTS, plugins=PLUGINS, plugin_config=ROOT, settings=settings)
    async with world, by_adhoc(world, tmp_path, await world.bind("root")) as adhoc:
        await world.login("alice", "a")
        assert {about.name for about in world.app.commands if about.follows} == {name for name, _ in FOLLOWED}
        socket = AdminSocket(tmp_path / "xmppd.sock", world.app.commands)
        await socket.start()
        for name, arguments in FOLLOWED:
            followed = await world.app.commands.follow(name, arguments)
            first = await followed.next()
            await followed.close()
            lines = follow(socket.path, name, arguments)
            by_line = await asyncio.to_thread(next, lines)
            lines.close()
            about = next(it for it in world.app.commands if it.name == name)
            path = f"{path_of(about)}?{urlencode(arguments)}"
            response = await world.http("GET", path, token=TOKEN)
            assert response.pieces is not None
            pieces = aiter(response.pieces)
            events = [await anext(pieces), await anext(pieces)]
            await response.pieces.aclose()
            by_event = json.loads(events[1].split(b"data: ")[1])
            assert first is not None and first.keys() == by_line.keys() == by_event.keys()
            assert first["what"] == by_line["what"] == by_event["what"]
            assert "goes on until you leave" in (await adhoc(name, arguments))["refused"]
        await socket.close()
