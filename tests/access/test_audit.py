"""The log of what was done: by whom, through which door, with what, and what became of it."""

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from xmppd.access import audit as module
from xmppd.access.audit import AUDIT_LOG
from xmppd.admin.client import request
from xmppd.admin.commands import Caller
from xmppd.admin.socket import AdminSocket, name_of
from xmppd.config import made_of
from xmppd.errors import CommandError, StoreTimeout, StoreUnavailable
from xmppd.offline import offline
from xmppd.testing import World

ROOT = Caller("socket", "root")
TOKENS = [{"name": "maker", "sha256": hashlib.sha256(b"maker").hexdigest(), "scopes": ["*"]}]
PLUGIN = """
from typing import Annotated
from xmppd.admin.commands import Secret
from xmppd.plugin import CommandError, Plugin, StoreTimeout, command

class Game(Plugin):
    @command("Break")
    def crash(self) -> None:
        raise ZeroDivisionError

    @command("Refuse")
    def refuse(self, word: Annotated[str, Secret("a word")]) -> None:
        raise CommandError(f"{word} is not the word")

    @command("Be slow")
    def hang(self) -> None:
        raise StoreTimeout("late")
"""


async def entries(world: World, **filters: Any) -> list[dict[str, Any]]:
    await world.settle()
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"after": ""}
    while page["after"] is not None:
        page = await world.app.commands.call("audit list", {**filters, "after": page["after"]})
        found += page["rows"]
    return found


@pytest.mark.asyncio
async def test_what_is_done_stands_there_with_secrets_masked() -> None:
    async with World(settings={"http": {"tokens": TOKENS}}) as world:
        given = {"account": "zoe@localhost", "password": "geheim"}
        await world.app.commands.call("user add", given, ROOT)
        await world.advance(1)
        body = json.dumps(given).encode()
        await world.http("POST", "/api/v1/user/add", token="maker", body=body, peer="192.0.2.7")
        await world.http("GET", "/api/v1/user/list", token="maker")
        refused, done = await entries(world)
        assert done["at"] == "2023-11-14T22:13:20.000Z"
        assert (done["door"], done["who"], done["command"]) == ("socket", "root", "user add")
        assert done["arguments"] == {"account": "zoe@localhost", "password": "********"}
        assert (done["outcome"], done["detail"]) == ("done", "")
        assert (refused["door"], refused["who"], refused["address"]) == ("http", "maker", "192.0.2.7")
        assert refused["outcome"] == "refused" and refused["detail"].startswith("account-exists: ")
        rows = (await world.app.store.scan(AUDIT_LOG, ("2023-11-14T22",))).rows
        assert len(rows) == 2 and "geheim" not in str(rows)


@pytest.mark.asyncio
async def test_what_is_no_parameter_may_be_a_secret() -> None:
    async with World() as world:
        given = {"account": "zoe@localhost", "pasword": "geheim"}
        with pytest.raises(CommandError, match="pasword"):
            await world.app.commands.call("user add", given, ROOT)
        with pytest.raises(CommandError, match="must be text"):
            await world.app.commands.call("user add", {"account": "z@localhost", "password": 5}, ROOT)
        assert "geheim" not in str(await entries(world))


@pytest.mark.asyncio
async def test_a_refusal_that_repeats_a_secret_stands_there_without_it(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(PLUGIN)
    async with World(plugins=("game",), plugin_folders=(tmp_path,)) as world:
        with pytest.raises(CommandError, match="geheim"):
            await world.app.commands.call("game refuse", {"word": "geheim"}, ROOT)
        assert [it["detail"] for it in await entries(world)] == ["refused: ******** is not the word"]


@pytest.mark.asyncio
async def test_who_was_told_secrets_stands_there() -> None:
    async with World() as world:
        await world.app.commands.call("migrate give", {"account": ["alice@localhost"]}, ROOT)
        await world.app.commands.call("user list", {}, ROOT)
        assert [it["command"] for it in await entries(world)] == ["migrate give"]


@pytest.mark.asyncio
async def test_it_is_written_before_it_is_done() -> None:
    async with World() as world:
        seen: list[str] = []

        async def create(account: str, password: str) -> None:
            rows = (await world.app.store.scan(AUDIT_LOG, ("2023-11-14T22",))).rows
            seen.extend(row["outcome"] for row in rows)

        users = next(it for it in world.app.commands if it.name == "user add").function.__self__
        users.accounts.create = create
        await world.app.commands.call("user add", {"account": "zoe@localhost", "password": "x"}, ROOT)
        assert seen == ["unknown"]
        assert [it["outcome"] for it in await entries(world)] == ["done"]


@pytest.mark.asyncio
async def test_outcomes_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(PLUGIN)
    async with World(plugins=("game",), plugin_folders=(tmp_path,)) as world:
        with pytest.raises(ZeroDivisionError):
            await world.app.commands.call("game crash", {}, ROOT)
        await world.advance(1)
        with pytest.raises(CommandError):
            await world.app.commands.call("game hang", {}, ROOT)
        found = [(it["outcome"], it["detail"]) for it in await entries(world)]
        assert found == [("unknown", "store-timeout: late"), ("failed", "ZeroDivisionError")]


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreTimeout("late"), None])
async def test_a_store_that_does_not_answer_holds_nobody_up(
    error: Exception | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_SECONDS", 0.02)
    async with World() as world:
        put, stuck = world.app.store.put, asyncio.Event()

        async def away(table: Any, row: Any, **more: Any) -> None:
            if table is not AUDIT_LOG:
                await put(table, row, **more)
            elif error is not None:
                raise error
            else:
                await stuck.wait()
                await put(table, row, **more)

        world.app.store.put = away  # type: ignore[method-assign]
        await world.app.commands.call("user disable", {"account": "alice@localhost"}, ROOT)
        [first, *_] = [it for it in caplog.records if it.message == "audit-not-written"]
        assert vars(first)["command"] == "user disable" and vars(first)["who"] == "root"
        stuck.set()
        found = [it["outcome"] for it in await entries(world)]
        assert found == (["done"] if error is None else [])


@pytest.mark.asyncio
async def test_a_list_has_what_was_asked_for_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    async with World() as world:
        for number in range(7):
            by = Caller("socket", "root" if number % 2 else "eve")
            name = "user disable" if number < 4 else "token revoke"
            arguments = {"account": "alice@localhost"}
            try:
                await world.app.commands.call(name, arguments, by)
            except CommandError:
                assert name == "token revoke"
            await world.advance(1800)
        every = await entries(world)
        assert [it["command"] for it in every] == ["token revoke"] * 3 + ["user disable"] * 4
        assert [it["at"] for it in every] == sorted((it["at"] for it in every), reverse=True)
        assert len({it["at"] for it in every}) == 7
        assert [it["who"] for it in await entries(world, who="root")] == ["root"] * 3
        assert (
            len(await entries(world, command="user"))
            == len(await entries(world, command="user disable"))
            == 4
        )
        assert await entries(world, command="use") == []
        assert len(await entries(world, since=every[2]["at"])) == 3
        for wrong in ({"since": "yesterday"}, {"after": "x"}, {"after": "2023-11-14/x"}):
            with pytest.raises(CommandError) as refused:
                await world.app.commands.call("audit list", wrong)
            assert refused.value.field in wrong


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_it_ends_after_its_days() -> None:
    async with World(settings={"audit": {"days": 2}}) as world:
        await world.app.commands.call("user disable", {"account": "alice@localhost"}, ROOT)
        await world.settle()
        world.clock.seconds += 2 * 86_400 - 1
        assert len(await entries(world, since="2023-11-14")) == 1
        world.clock.seconds += 1
        assert await entries(world, since="2023-11-14") == []


@pytest.mark.asyncio
async def test_no_hour_is_read_that_has_ended() -> None:
    async with World(settings={"audit": {"days": 2}}) as world:
        scan, hours = world.app.store.scan, []

        async def counted(table: Any, partition: Any, **more: Any) -> Any:
            hours.extend(partition if table is AUDIT_LOG else ())
            return await scan(table, partition, **more)

        world.app.store.scan = counted  # type: ignore[method-assign]
        assert await entries(world, since="2001-01-01") == []
        assert len(hours) == len(set(hours)) == 50


@pytest.mark.asyncio
async def test_what_is_long_is_cut() -> None:
    async with World() as world:
        group = ["x" * 150] * 3
        given = {"account": "alice@localhost", "contact": "bob@localhost", "name": "n" * 500, "group": group}
        await world.app.commands.call("roster add", given, ROOT)
        arguments = (await entries(world))[0]["arguments"]
        assert arguments["name"] == f"{'n' * 200}... (500 characters)"
        assert len(arguments["group"]) < 250


@pytest.mark.asyncio
async def test_the_socket_is_a_door(tmp_path: Path) -> None:
    async with World() as world:
        socket = AdminSocket(tmp_path / "s", world.app.commands)
        await socket.start()
        await asyncio.to_thread(request, socket.path, "user disable", {"account": "bob@localhost"})
        await socket.close()
        [found] = await entries(world)
        assert (found["door"], found["who"]) == ("socket", name_of(os.getuid()))


@pytest.mark.own_engine
def test_what_is_done_without_a_server_is_there_too(tmp_path: Path) -> None:
    config = made_of({"server": {"data_folder": str(tmp_path)}})
    with offline(config, needs="tables", create=True) as door:
        door.call("store migrate", {})
    with offline(config, needs="server") as door:
        door.call("user add", {"account": "zoe@localhost", "password": "geheim"})
    with offline(config, needs="server") as door:
        rows = door.call("audit list", {})["rows"]
    assert [(it["command"], it["door"], it["outcome"]) for it in rows] == [
        ("user add", "offline", "done"),
        ("store migrate", "offline", "done"),
    ]
    assert {it["who"] for it in rows} == {name_of(os.getuid())}


ROUTES = """
from xmppd.plugin import HttpError, Plugin, PUBLIC, route

class Game(Plugin):
    @route("GET", "/rooms/{room}", scope="rooms")
    def look(self, request):
        return {}

    @route("POST", "/rooms/{room}", scope="rooms")
    async def make(self, request):
        if request.params["room"] == "full":
            raise HttpError(409, "It is full.")
        if request.params["room"] == "broken":
            raise ZeroDivisionError
        return {"made": request.json()["name"]}

    @route("DELETE", "/open/{room}", scope=PUBLIC)
    def open(self, request):
        return None
"""


@pytest.mark.asyncio
async def test_what_routes_of_plugins_change_stands_there(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(ROUTES)
    settings = {"http": {"tokens": TOKENS}}
    async with World(plugins=("game",), plugin_folders=(tmp_path,), settings=settings) as world:
        body = b'{"name": "very secret"}'
        key = {"Idempotency-Key": "k1"}
        for method, path, token, headers in (
            ("GET", "/rooms/a", "maker", {}),
            ("POST", "/rooms/a", "maker", key),
            ("POST", "/rooms/a", "maker", key),
            ("POST", "/rooms/a", "", {}),
            ("POST", "/rooms/full", "maker", {}),
            ("POST", "/rooms/broken", "maker", {}),
            ("DELETE", "/open/b", "", {}),
        ):
            await world.http(method, path, token=token, body=body, headers=headers, peer="10.0.0.9")
            await world.advance(1)
        found = [
            (it["command"], it["who"], it["address"], it["arguments"], it["outcome"], it["detail"])
            for it in await entries(world, command="route")
        ]
        made, peer = "route POST /rooms/{room}", "10.0.0.9"
        assert found[::-1] == [
            (made, "maker", peer, {"path": "/rooms/a"}, "done", ""),
            (made, "maker", peer, {"path": "/rooms/full"}, "refused", "409: It is full."),
            (made, "maker", peer, {"path": "/rooms/broken"}, "failed", "500: 500"),
            ("route DELETE /open/{room}", "", peer, {"path": "/open/b"}, "done", ""),
        ]
