"""Commands that go on until their caller leaves: by the socket, by HTTP and from elsewhere, and where not."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from patience import PATIENCE
from tunnels import Tunnel

from xmppd import ns
from xmppd.admin import registry, remote
from xmppd.admin.client import follow, request
from xmppd.admin.commands import Caller
from xmppd.admin.contexts import Context
from xmppd.admin.remote import Remote
from xmppd.admin.socket import AdminSocket
from xmppd.api import events
from xmppd.errors import CommandError
from xmppd.net.http import door
from xmppd.net.http.door import Door
from xmppd.testing import World

pytestmark = pytest.mark.asyncio
ALICE = "alice@localhost"
PATH = f"/api/v1/trace?account={ALICE}"
TOKENS = [
    {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
    for name, scopes in {"all": ["*"], "tracer": ["trace:read"], "reader": ["*:read"]}.items()
]
ADHOC = {"adhoc": {"roles": {"root": {"accounts": [ALICE], "scopes": ["*"]}}}}
TEXT = "<message to='bob@localhost' type='chat' id='{}'><body>secret</body></message>"


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(registry, "BEAT_SECONDS", 0.3)  # by which a loss is seen
    settings = {"http": {"tokens": TOKENS}}
    async with World(nodes=1, plugins=("adhoc",), plugin_config=ADHOC, settings=settings) as it:
        yield it


@asynccontextmanager
async def site(world: World) -> AsyncIterator[aiohttp.ClientSession]:
    door = Door(world.app.routes, 64, world.app.jobs.spawn)
    await door.open("127.0.0.1", 0, 10)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{door.port}") as client:
        client.door = door  # type: ignore[attr-defined]
        yield client
    await door.close()


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


async def event(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The next event: its fields."""
    found: dict[str, str] = {}
    while True:
        line = (await asyncio.wait_for(response.content.readline(), PATIENCE)).decode().rstrip("\n")
        if line and not line.startswith((":", "retry")):
            name, _, value = line.partition(": ")
            found[name] = value
        elif not line and found:
            return found


async def record(response: aiohttp.ClientResponse, what: str) -> dict[str, Any]:
    while True:
        data = json.loads((await event(response))["data"])
        if data["what"] == what:
            return data


def followers(world: World) -> int:
    return len(world.app.commands._followed)


async def until_gone(world: World) -> None:
    async with asyncio.timeout(PATIENCE):
        while followers(world):  # noqa: ASYNC110 - they tell nobody of their end
            await asyncio.sleep(0.01)


async def test_events_come_with_ids_as_things_happen(world: World) -> None:
    alice = await world.login("alice", "a")
    async with site(world) as client, client.get(PATH, headers=bearer("tracer")) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        first = await event(response)
        assert first["id"].endswith(".1") and json.loads(first["data"])["what"] == "session"
        await alice.send(TEXT.format("m1"))
        second = await event(response)
        assert second["id"].endswith(".2") and "id='m1'" in json.loads(second["data"])["xml"]
        assert "secret" not in second["data"]
    await world.app.doors.close()
    await until_gone(world)
    assert not world.app.router.watches_next


def again(token: str, last: str) -> dict[str, str]:
    return bearer(token, **{"Last-Event-ID": last})


async def stanzas(world: World, *names: str) -> None:
    alice = world.app.sessions.of(ALICE)
    client = next(it for it in world.clients if it.jid == alice[0].full)
    for name in names:
        await client.send(TEXT.format(name))


async def data_until(response: aiohttp.ClientResponse, text: str) -> list[dict[str, str]]:
    """All events up to the first one of what came in with this in its data."""
    found = []
    while not found or text not in found[-1]["data"] or '"in"' not in found[-1]["data"]:
        found.append(await event(response))
    return found


async def test_who_comes_again_goes_on_without_a_hole(world: World) -> None:
    await world.login("alice", "a")
    async with site(world) as client:
        async with client.get(PATH, headers=bearer("tracer")) as response:
            await stanzas(world, "m1", "m2", "m3")
            seen = await data_until(response, "id='m1'")
            await data_until(response, "id='m3'")  # they were sent, and not all had come when it broke
        await stanzas(world, "m4")
        async with client.get(PATH, headers=again("tracer", seen[-1]["id"])) as response:
            rest = await data_until(response, "id='m4'")
            await stanzas(world, "m5")
            rest += await data_until(response, "id='m5'")
        numbers = [int(it["id"].partition(".")[2]) for it in seen + rest]
        assert numbers == [*range(1, len(numbers) + 1)]
        text = "".join(it["data"] for it in seen + rest)
        assert all(f"id='m{number}'" in text for number in range(1, 6)) and "lost" not in text
        assert followers(world) == 1


async def test_who_comes_again_before_the_loss_is_known_takes_over(world: World) -> None:
    await world.login("alice", "a")
    async with site(world) as client, client.get(PATH, headers=bearer("tracer")) as first:
        seen = await event(first)
        async with client.get(PATH, headers=again("tracer", seen["id"])) as second:
            await second.content.readline()
            await stanzas(world, "m1")
            await data_until(second, "id='m1'")
            assert followers(world) == 1
            await stanzas(world, "m2")
            await data_until(second, "id='m2'")
            rest = await asyncio.wait_for(first.content.read(), PATIENCE)
            assert b"id='m2'" not in rest, "the first one has ended"


async def test_what_is_kept_is_bounded_and_a_hole_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT_EVENTS", 4)
    await world.login("alice", "a")
    async with site(world) as client:
        async with client.get(PATH, headers=bearer("tracer")) as response:
            seen = await event(response)
            await stanzas(world, "m1", "m2", "m3", "m4", "m5")
            await data_until(response, "id='m5'")
        async with client.get(PATH, headers=again("tracer", seen["id"])) as response:
            told = await event(response)
            last = int(told["id"].partition(".")[2])
            assert f"events 2 to {last} are lost" in told["data"]
            following = await event(response)
            assert int(following["id"].partition(".")[2]) == last + 1


@pytest.mark.parametrize("last", ["41", "x.1", "\N{SNOWMAN}", "x." + "9" * 40, "."])
async def test_who_comes_again_is_told_that_something_is_lost(world: World, last: str) -> None:
    async with site(world) as client, client.get(PATH, headers=again("all", last)) as response:
        first = await event(response)
        assert first["id"].endswith(".1") and "is lost" in first["data"]


async def test_nobody_goes_on_with_what_is_not_his(world: World) -> None:
    async with site(world) as client:
        async with client.get(f"{PATH}&bodies=true", headers=bearer("all")) as response:
            seen = await world_event(world, response)
        for path, token in ((f"{PATH}&bodies=false", "all"), (PATH, "tracer"), (PATH, "all")):
            async with client.get(path, headers=again(token, seen["id"])) as response:
                first = await event(response)
                assert first["id"].partition(".")[0] != seen["id"].partition(".")[0], path
                assert "is lost" in first["data"]
        for wrong in (1_000_000, -1, "x"):
            last = f"{seen['id'].partition('.')[0]}.{wrong}"
            async with client.get(f"{PATH}&bodies=true", headers=again("all", last)) as response:
                assert "is lost" in (await event(response))["data"]


async def world_event(world: World, response: aiohttp.ClientResponse) -> dict[str, str]:
    """The first event, of a login."""
    await world.login("alice", "a")
    return await event(response)


async def test_who_does_not_come_again_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT_SECONDS", 0.05)
    await world.login("alice", "a")
    async with site(world) as client:
        async with client.get(PATH, headers=bearer("tracer")) as response:
            seen = await event(response)
        await stanzas(world, "m1", "m2")  # a broken connection is seen when something is written to it
        await until_gone(world)
        assert not world.app.router.watches_next
        async with client.get(PATH, headers=again("tracer", seen["id"])) as response:
            assert "is lost" in (await event(response))["data"]


async def test_who_is_away_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_FOLLOWED", 2)
    await world.login("alice", "a")
    async with site(world) as client, client.get(PATH, headers=bearer("all")) as here:
        await event(here)
        async with client.get(PATH, headers=bearer("tracer")) as response:
            seen = await event(response)
        await stanzas(world, "m1", "m2")
        async with asyncio.timeout(PATIENCE):
            while not any(it.timer for it in world.app.doors._tracks._by_id.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with client.get(PATH, headers=bearer("all")) as response:
            assert response.status == 200 and followers(world) == 2
            async with client.get(PATH, headers=again("tracer", seen["id"])) as other:
                assert other.status == 503, "all are here"


async def test_refusals_come_before_anything_is_sent(world: World) -> None:
    async with site(world) as client:
        for path, token, status in (
            (PATH, "reader", 403),
            (PATH, "nobody", 401),
            ("/api/v1/trace?account=@", "all", 400),
            ("/api/v1/trace", "all", 400),
            (f"{PATH}&bodies=true", "tracer", 403),
        ):
            async with client.get(path, headers=bearer(token)) as response:
                assert response.status == status, path
                assert response.content_type == "application/problem+json"
        async with client.head(PATH, headers=bearer("all")) as response:
            assert response.status == 200
        await until_gone(world)


async def test_comments_come_when_nothing_does_and_the_token_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(events, "CHECK_SECONDS", 0.01)
    added = await world.app.commands.call("api-token add", {"name": "brief", "scope": ["trace:read"]})
    async with site(world) as client, client.get(PATH, headers=bearer(added["token"])) as response:
        assert (await response.content.readline()).startswith(b"retry")
        await response.content.readline()
        assert await asyncio.wait_for(response.content.readline(), PATIENCE) == b":\n"
        await world.app.commands.call("api-token revoke", {"name": "brief"})
        last = await event(response)
        assert last["event"] == "end" and "token" in last["data"]
        assert await asyncio.wait_for(response.content.read(), PATIENCE) == b""
    await until_gone(world)


async def test_there_are_so_many_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_FOLLOWED", 1)
    async with site(world) as client, client.get(PATH, headers=bearer("all")) as response:
        assert response.status == 200
        async with client.get(PATH, headers=bearer("all")) as other:
            assert other.status == 503 and (await other.json(content_type=None))["rule"] == "too-many-follow"
            assert other.headers["Retry-After"]


async def test_one_ends_after_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(registry, "BEAT_SECONDS", 0.01)
    async with site(world) as client, client.get(PATH, headers=bearer("all")) as response:
        assert "begin anew" in (await event(response))["data"]
        assert (await event(response))["event"] == "end"


async def test_a_server_that_stops_says_so_and_waits_for_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "CLOSE_SECONDS", 2 * PATIENCE)
    async with site(world) as client, client.get(PATH, headers=bearer("all")) as response:
        world.app.following.close()
        await asyncio.wait_for(client.door.close(), PATIENCE)  # type: ignore[attr-defined]
        assert "the server stops" in (await event(response))["data"]
        assert (await event(response))["event"] == "end"
        await until_gone(world)


async def test_who_does_not_read_loses_records_and_is_told(world: World) -> None:
    alice = await world.login("alice", "a")
    followed = await world.app.commands.follow("trace", {"account": ALICE})
    for number in range(600):
        await alice.send(f"<iq type='get' id='{number}'><ping xmlns='urn:xmpp:ping'/></iq>")
    await world.settle()
    found = [await followed.next() for _ in range(1002)]
    dropped = [it["count"] for it in found if it is not None and it["what"] == "dropped"]
    assert dropped and sum(dropped) + 1000 >= 1200
    await followed.close()


async def test_the_command_line_elsewhere_reads_events(world: World) -> None:
    alice = await world.login("alice", "a")
    about = next(it for it in world.app.commands if it.name == "trace")
    async with site(world) as client:
        context = Context(f"http://127.0.0.1:{client.door.port}", "all")  # type: ignore[attr-defined]
        records = Remote(context, {"trace": about}).follow("trace", {"account": ALICE, "bodies": False})
        assert (await asyncio.to_thread(next, records))["what"] == "session"
        await alice.send(TEXT.format("m1"))
        assert "id='m1'" in (await asyncio.to_thread(next, records))["xml"]
        records.close()
        wrong = Remote(Context(context.url, "reader"), {"trace": about})
        with pytest.raises(CommandError, match="no scope trace:read"):
            await asyncio.to_thread(next, wrong.follow("trace", {"account": ALICE}))


async def test_the_command_line_elsewhere_comes_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "AGAIN_SECONDS", 0.05)
    await world.login("alice", "a")
    about = next(it for it in world.app.commands if it.name == "trace")
    async with site(world) as client:
        tunnel = Tunnel(client.door.port)  # type: ignore[attr-defined]
        await tunnel.start()
        records = Remote(Context(f"http://127.0.0.1:{tunnel.port}", "all"), {"trace": about}).follow(
            "trace", {"account": ALICE, "bodies": False}
        )
        assert (await asyncio.to_thread(next, records))["what"] == "session"
        for number in range(3):
            await stanzas(world, f"m{number}")
            while f"id='m{number}'" not in (await asyncio.to_thread(next, records)).get("xml", ""):
                pass
            tunnel.cut()
            await asyncio.sleep(0.1)
            tunnel.mend()
        tunnel.cut()
        monkeypatch.setattr(remote, "TRIES", 2)
        with pytest.raises(CommandError, match="did not answer"):
            await asyncio.to_thread(list, records)
        await tunnel.close()


async def test_the_socket_gives_a_line_for_each(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "BEAT_SECONDS", 0.02)
    alice = await world.login("alice", "a")
    socket = AdminSocket(tmp_path / "xmppd.sock", world.app.commands)
    await socket.start()
    records = follow(socket.path, "trace", {"account": ALICE})
    assert (await asyncio.to_thread(next, records))["what"] == "session"
    await asyncio.sleep(0.1)
    await alice.send(TEXT.format("m1"))
    assert "id='m1'" in (await asyncio.to_thread(next, records))["xml"]
    records.close()
    await until_gone(world)
    for name, arguments, why in (
        ("trace", {}, "account is missing"),
        ("status", {}, "there is no command"),
        ("session list", {}, "one result"),
    ):
        with pytest.raises(CommandError, match=why):
            await asyncio.to_thread(next, follow(socket.path, name, arguments))
    with pytest.raises(CommandError, match="goes on until you leave"):
        await asyncio.to_thread(request, socket.path, "trace", {"account": ALICE})
    await socket.close()


async def test_a_client_is_told_that_it_cannot(world: World) -> None:
    alice = await world.login("alice", "a")
    payload = f"<command xmlns='{ns.COMMANDS}' node='trace'/>"
    answer = await alice.ask("set", payload, to="localhost")
    form = f"<field var='account'><value>{ALICE}</value></field>"
    sid = answer[0].get("sessionid")
    payload = (
        f"<command xmlns='{ns.COMMANDS}' node='trace' sessionid='{sid}'>"
        f"<x xmlns='{ns.DATA_FORM}' type='submit'>{form}</x></command>"
    )
    answer = await alice.ask("set", payload, to="localhost")
    assert "goes on until you leave" in "".join(answer.itertext())


async def test_the_document_says_it(world: World) -> None:
    document = json.loads((await world.http("GET", "/api/v1/openapi.json")).body)
    operation = document["paths"]["/api/v1/trace"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Last-Event-ID" in {it["name"] for it in operation["parameters"]}


PLUGIN = """
from xmppd.plugin import Feed, Plugin, command

class Arena(Plugin):
    async def start(self):
        self.feeds = set()

    @command("Show what happens in the arena", follows=True)
    def watch(self, room: str) -> Feed:
        feed = Feed(lambda: self.feeds.discard(feed))
        self.feeds.add(feed)
        feed.put({"what": "begun", "room": room})
        return feed
"""


async def test_a_plugin_has_some_to_follow(tmp_path: Path) -> None:
    (tmp_path / "arena.py").write_text(PLUGIN)
    settings = {"http": {"tokens": TOKENS}}
    async with World(nodes=1, plugins=("arena",), plugin_folders=(tmp_path,), settings=settings) as world:
        path = "/api/v1/arena/watch?room=a"
        async with site(world) as client, client.get(path, headers=bearer("reader")) as response:
            assert json.loads((await event(response))["data"]) == {"what": "begun", "room": "a"}
            [feed] = world.plugin("arena").feeds
            feed.put({"what": "hit"})
            assert await record(response, "hit") == {"what": "hit"}
            feed.close()
            assert (await event(response))["event"] == "end"
        assert world.plugin("arena").feeds == set()


async def test_those_that_begin_count_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_FOLLOWED", 1)
    caller = Caller("socket", "root")  # it is written down first, which waits
    begun = await asyncio.gather(
        *(world.app.commands.follow("trace", {"account": ALICE}, caller) for _ in range(3)),
        return_exceptions=True,
    )
    assert [isinstance(it, CommandError) for it in begun] == [False, True, True]
