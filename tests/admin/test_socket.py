"""The unix socket: rights, stale files, bounds, and what happens when a command breaks."""

import asyncio
import json
import os
import socket
import stat

import pytest
import pytest_asyncio

from xmppd.admin.client import NoServer, request
from xmppd.admin.commands import Command, Description, command, commands_of
from xmppd.admin.registry import Commands
from xmppd.admin.socket import AdminSocket, is_trusted
from xmppd.errors import CommandError


class Echo:
    """Commands that show how the socket behaves."""

    def __init__(self):
        self.started = asyncio.Event()

    @command("Say it back")
    async def echo(self, text: str) -> list[str]:
        return [text]

    @command("Refuse")
    def refuse(self) -> None:
        raise CommandError("not today", 42)

    @command("Break")
    def crash(self) -> None:
        raise ZeroDivisionError("secret detail")

    @command("Return what JSON cannot hold")
    def unspeakable(self) -> object:
        return object()

    @command("Never end")
    async def hang(self) -> None:
        self.started.set()
        await asyncio.Event().wait()


@pytest_asyncio.fixture
async def server(tmp_path):
    server = AdminSocket(tmp_path / "xmppd.sock", Commands(commands_of(Echo())), read_seconds=0.2)
    await server.start()
    yield server
    await server.close()


def call(server, name, **arguments):
    return asyncio.to_thread(request, server.path, name, arguments)


@pytest.mark.asyncio
async def test_a_round_trip(server):
    assert await call(server, "echo", text="gr\u00fc\u00dfe\n") == ["gr\u00fc\u00dfe\n"]


@pytest.mark.asyncio
async def test_many_at_once(server):
    assert await asyncio.gather(*(call(server, "echo", text=str(n)) for n in range(8))) == [
        [str(n)] for n in range(8)
    ]


@pytest.mark.asyncio
async def test_only_the_owner_may_use_it(tmp_path):
    before = os.umask(0)
    try:
        server = AdminSocket(tmp_path / "s", Commands())
        await server.start()
    finally:
        os.umask(before)
    mode = server.path.stat().st_mode
    await server.close()
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("uid", "trusted"), [(0, True), (65534, False)])
def test_other_users_are_not_trusted(uid, trusted):
    os.seteuid(uid)
    try:
        peer, other = socket.socketpair(socket.AF_UNIX)
    finally:
        os.seteuid(0)
    with peer, other:
        assert is_trusted(peer) is trusted


@pytest.mark.asyncio
async def test_a_refusal_keeps_its_exit_code(server):
    with pytest.raises(CommandError, match="not today") as caught:
        await call(server, "refuse")
    assert caught.value.exit_code == 42


@pytest.mark.asyncio
async def test_a_crash_is_logged_and_not_shown(server, caplog):
    with pytest.raises(CommandError, match="failed inside the server") as caught:
        await call(server, "crash")
    assert caught.value.exit_code == 1
    assert "secret detail" not in str(caught.value)
    assert "secret detail" in caplog.text
    assert await call(server, "echo", text="still here") == ["still here"]


@pytest.mark.asyncio
async def test_a_result_that_is_no_data_is_a_crash(server):
    with pytest.raises(CommandError, match="failed inside the server"):
        await call(server, "unspeakable")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{",
        b"[]\n",
        b"5\n",
        b"{}\n",
        b'{"command": 5}\n',
        b'{"command": "echo", "arguments": []}\n',
        b"[" * 60_000 + b"\n",
    ],
)
async def test_what_is_no_request_is_refused(server, line):
    assert json.loads(await exchange(server, line))["error"] == {
        "message": "this is not a request",
        "exit_code": 2,
    }


@pytest.mark.asyncio
async def test_a_request_has_a_bound(server):
    reply = json.loads(await exchange(server, b"x" * 1_100_000))
    assert reply["error"] == {"message": "the request is too long", "exit_code": 2}


@pytest.mark.asyncio
async def test_silence_is_cut_off(server):
    reader, writer = await asyncio.open_unix_connection(server.path)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.asyncio
async def test_the_number_of_connections_has_a_bound(server):
    opened = [await asyncio.open_unix_connection(server.path) for _ in range(17)]
    reader, _ = opened[-1]
    assert await reader.read() == b""
    assert [reader.at_eof() for reader, _ in opened[:-1]] == [False] * 16
    for _, writer in opened:
        writer.close()


async def exchange(server, data):
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(data)
    if not data.endswith(b"\n"):
        writer.write_eof()
    reply = await reader.read()
    writer.close()
    return reply


@pytest.mark.asyncio
async def test_closing_cuts_off_who_waits_and_takes_the_socket_away(tmp_path):
    echo = Echo()
    server = AdminSocket(tmp_path / "s", Commands(commands_of(echo)))
    await server.start()
    waiting = asyncio.create_task(call(server, "hang"))
    await echo.started.wait()
    await server.close()
    with pytest.raises(CommandError, match="without a reply") as caught:
        await waiting
    assert caught.value.exit_code == 69
    assert not server.path.exists()
    await server.close()


@pytest.mark.asyncio
async def test_the_socket_of_a_dead_server_is_replaced(tmp_path):
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen()
    dead.close()
    server = AdminSocket(path, Commands(commands_of(Echo())))
    await server.start()
    assert await call(server, "echo", text="x") == ["x"]
    await server.close()


@pytest.mark.asyncio
async def test_the_socket_of_a_living_server_is_not(server):
    with pytest.raises(CommandError, match="another server is running here"):
        await AdminSocket(server.path, Commands()).start()
    assert await call(server, "echo", text="x") == ["x"]


@pytest.mark.asyncio
async def test_what_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(CommandError, match="it is not a socket"):
        await AdminSocket(tmp_path / "s", Commands()).start()
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.asyncio
async def test_a_folder_deeper_than_the_kernel_allows(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    server = AdminSocket(folder / "xmppd.sock", Commands(commands_of(Echo())))
    await server.start()
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert await call(server, "echo", text="x") == ["x"]
    await server.close()


@pytest.mark.parametrize("name", ["nothing", "folder/nothing", "file", "file/below"])
def test_nobody_answers(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(NoServer) as caught:
        request(tmp_path / name, "echo", {})
    assert caught.value.exit_code == 69


@pytest.mark.asyncio
async def test_a_server_that_does_not_reply_in_time(server):
    with pytest.raises(CommandError, match="did not reply") as caught:
        await asyncio.to_thread(request, server.path, "hang", {}, seconds=0.1)
    assert caught.value.exit_code == 69


@pytest.mark.asyncio
async def test_commands_of_plugins_are_listed(server):
    server.commands.add(Command("ban", "Ban somebody", function=lambda: None))
    listed = await call(server, "commands")
    assert Description("ban", "Ban somebody").as_json() in listed


@pytest.mark.asyncio
async def test_who_comes_before_all_is_there_waits(tmp_path):
    server = AdminSocket(tmp_path / "s", Commands(commands_of(Echo())))
    server.claim()
    with pytest.raises(CommandError):
        AdminSocket(tmp_path / "s", Commands()).claim()
    asking = asyncio.create_task(asyncio.to_thread(request, server.path, "commands", {}))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await server.start()
    assert await asking
    await server.close()
    assert not (tmp_path / "s").exists()


@pytest.mark.asyncio
async def test_a_path_that_was_claimed_only_is_given_up(tmp_path):
    server = AdminSocket(tmp_path / "s", Commands())
    server.claim()
    await server.close()
    assert not (tmp_path / "s").exists()
