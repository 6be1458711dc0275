"""All that is kept of a person, as a file: complete, without secrets, by every door."""

import asyncio
import io
import json
import stat
import zipfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lived import HTTP, PLUGINS, TOKEN, lived

from xmppd.admin.client import download
from xmppd.admin.commands import Download
from xmppd.admin.saving import save
from xmppd.admin.socket import AdminSocket
from xmppd.errors import CommandError
from xmppd.rights.persons import Persons, person_of
from xmppd.testing import World

ACCOUNTS = ("zoe", "bob", "carol")
ZOE = {"account": "zoe@localhost"}


def world_of(**more: Any) -> World:
    return World(accounts=ACCOUNTS, plugins=PLUGINS, settings=HTTP, **more)


async def taken(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def opened(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.testzip() is None
        return {name: json.loads(file.read(name)) for name in file.namelist()}


@pytest.mark.asyncio
async def test_the_file_has_the_rows_of_every_table() -> None:
    async with world_of() as world:
        await lived(world)
        file = await world.app.commands.call("account export", ZOE)
        assert isinstance(file, Download)
        found = opened(await taken(file.pieces))
        persons = Persons(world.app.store, world.app.tables)
        for table in persons.owned:
            name = f"tables/{table.name}.json"
            assert len(found[name]) == found["manifest.json"]["rows"][name]
            assert len(found[name]) == await persons.count(table, "zoe@localhost")
        rows = {name: len(it) for name, it in found.items() if name.startswith("tables/")}
        assert rows["tables/archive_messages.json"] == 6
        never = {"account_gone", "account_moved", "arrivals", "archive_behind"}
        assert {name for name, count in rows.items() if not count} <= {f"tables/{it}.json" for it in never}
        texts = [row["stanza"] for row in found["tables/archive_messages.json"]]
        assert sum("<body>from zoe</body>" in text for text in texts) == 1
        assert rows["tables/offline_queue.json"] == 1
        assert found["mentions/blocking_reports.json"][0]["account"] == "zoe@localhost"
        schema = found["schema.json"]["files"]
        assert set(schema) == set(found) - {"manifest.json", "schema.json"}
        [account] = found["tables/account.json"]
        assert not set(account) & set(schema["tables/account.json"]["not given"])
        assert "scram_sha_256" in schema["tables/account.json"]["not given"]


@pytest.mark.asyncio
async def test_nothing_that_is_secret_is_given() -> None:
    async with world_of() as world:
        await lived(world)
        row = await world.app.store.get(world.app.tables()[0], ("zoe@localhost",))
        file = await world.app.commands.call("account export", ZOE)
        text = json.dumps(opened(await taken(file.pieces)))
        secret = [row[name] for name in person_of(world.app.tables()[0]).secret if row[name]]
        assert secret
        assert not [it for it in secret if it in text]


@pytest.mark.asyncio
async def test_memory_is_bounded_by_a_page_of_a_long_archive() -> None:
    async with world_of() as world:
        archive = world.plugin("archive")
        uid = await archive.uid_of("zoe@localhost")
        row = archive.writers.message.row
        stanza = b"<message to='bob@localhost'><body>" + bytes(range(97, 123)) * 8 + b"</body></message>"
        months = archive.writers.month.row(uid, 600)
        for start in range(0, 4000, 500):
            some = [row(uid, 600, number.to_bytes(12, "big"), "bob@localhost", stanza)
                    for number in range(start, start + 500)]  # fmt: skip
            await archive.messages.write([*some, *([] if start else [months])])
        file = await world.app.commands.call("account export", ZOE)
        pieces = [piece async for piece in file.pieces]
        assert len(opened(b"".join(pieces))["tables/archive_messages.json"]) == 4000
        assert len(pieces) == 1 or max(map(len, pieces)) < 200_000


@pytest.mark.asyncio
async def test_by_http_it_is_a_download_and_by_adhoc_it_is_said_where() -> None:
    adhoc = {"adhoc": {"roles": {"root": {"accounts": ["bob@localhost"], "scopes": ["*"]}}}}
    plugins = (*PLUGINS, "adhoc")
    async with World(accounts=ACCOUNTS, plugins=plugins, settings=HTTP, plugin_config=adhoc) as world:
        response = await world.http("GET", "/api/v1/account/export?account=zoe@localhost", token=TOKEN)
        assert (response.status, response.content_type) == (200, "application/zip")
        assert response.headers["Content-Disposition"].startswith(
            "attachment; filename*=UTF-8''zoe%40localhost-"
        )
        assert response.headers["Cache-Control"] == "no-store"
        assert response.pieces is not None
        assert "manifest.json" in opened(await taken(response.pieces))
        response = await world.http("HEAD", "/api/v1/account/export?account=zoe@localhost", token=TOKEN)
        assert response.status == 200
        response = await world.http("GET", "/api/v1/account/export?account=nobody@localhost", token=TOKEN)
        assert (response.status, response.pieces) == (404, None)
        bob = await world.login("bob")
        ask = "<command xmlns='http://jabber.org/protocol/commands' node='account export'{}>{}</command>"
        begun = await bob.ask("set", ask.format("", ""), to="localhost")
        field = "<field var='account'><value>zoe@localhost</value></field>"
        form = f"<x xmlns='jabber:x:data' type='submit'>{field}</x>"
        sid = begun[0].get("sessionid")
        answer = await bob.ask("set", ask.format(f" sessionid='{sid}'", form), to="localhost")
        note = answer.find(".//{*}note")
        assert note is not None
        assert "a chat client cannot take" in str(note.text)


@pytest.mark.asyncio
async def test_by_the_socket_it_is_written_to_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    async with world_of() as world:
        await lived(world)
        socket = AdminSocket(tmp_path / "xmppd.sock", world.app.commands)
        await socket.start()
        door = SimpleNamespace(download=partial(download, socket.path))
        out = tmp_path / "zoe.zip"
        shown = await asyncio.to_thread(save, "account export", door, ZOE, out)  # type: ignore[arg-type]
        assert shown == {"written": str(out), "bytes": out.stat().st_size}
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert opened(out.read_bytes())["manifest.json"]["account"] == "zoe@localhost"
        for arguments, path, why in [
            (ZOE, out, "is there already"),
            ({"account": "nobody@localhost"}, tmp_path / "other.zip", "there is no account"),
        ]:
            with pytest.raises(CommandError, match=why):
                await asyncio.to_thread(save, "account export", door, arguments, path)  # type: ignore[arg-type]
        assert not (tmp_path / "other.zip").exists()
        await socket.close()


@pytest.mark.asyncio
async def test_what_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    async with world_of() as world:

        async def broken() -> AsyncIterator[bytes]:
            yield b"half"
            raise CommandError("the store is away")

        command = next(it for it in world.app.commands if it.name == "account export")
        object.__setattr__(
            command, "function", lambda account: Download("x.zip", "application/zip", broken())
        )
        socket = AdminSocket(tmp_path / "xmppd.sock", world.app.commands)
        await socket.start()
        door = SimpleNamespace(download=partial(download, socket.path))
        with pytest.raises(CommandError, match="broke off"):
            await asyncio.to_thread(save, "account export", door, ZOE, tmp_path / "x.zip")  # type: ignore[arg-type]
        assert not (tmp_path / "x.zip").exists()
        await socket.close()
