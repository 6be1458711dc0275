"""Guessing passwords over streams, and what operators and fail2ban read of it."""

import asyncio
import base64
import configparser
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from several import several

from xmppd import ns
from xmppd.log import configure
from xmppd.settings import LogConfig
from xmppd.testing import World

FILTER = Path(__file__).parents[2] / "config" / "fail2ban" / "xmppd.conf"
GUESSER, OWNER = "203.0.113.9", "198.51.100.7"


class Pauses(list[float]):
    """What a world waits, which takes no time; its nodes hear of each other meanwhile."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        for app in world.apps:
            app.logins.pause = self.pause

    async def pause(self, seconds: float) -> None:
        self.append(seconds)
        end = self._world.clock.seconds + seconds
        while self._world.clock.seconds < end:
            self._world.clock.seconds = min(self._world.clock.seconds + 1, end)
            for app in self._world.apps:
                if app.cluster is not None:
                    app.cluster.mesh.tick()
            for _ in range(4):  # there and back
                await asyncio.sleep(0)


def counts(world: World, event: str) -> int:
    """How often all nodes counted it."""
    return sum(app.reports.counts[event] for app in world.apps)


async def attempt(
    world: World, peer: str, user: str = "alice", password: str = "wrong", node: int | None = None
) -> str:
    client = world.connect(peer, node=node)
    await client.open()
    answer = await client.authenticate(user, password)
    name = answer.tag.rpartition("}")[2] if len(answer) == 0 else answer[0].tag.rpartition("}")[2]
    await client.drop()
    return name


@pytest.mark.asyncio
async def test_a_guesser_is_slowed_down_over_his_connections_and_the_owner_is_not() -> None:
    async with World() as world:
        pauses = Pauses(world)
        assert [await attempt(world, GUESSER) for _ in range(9)] == ["not-authorized"] * 9
        assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0]
        del pauses[:]
        assert await attempt(world, OWNER, password="secret") == "success"
        assert pauses == []
        assert await attempt(world, GUESSER, password="secret") == "success", "late, but true"
        assert pauses == [10.0]
        del pauses[:]
        assert await attempt(world, GUESSER, password="secret") == "success"
        assert pauses == []
        assert counts(world, "login-failed") == 9
        assert counts(world, "login-delayed") == 6


@pytest.mark.asyncio
async def test_who_guesses_on_one_node_is_slowed_down_on_all_and_the_owner_on_none(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        pauses = Pauses(world)
        for _ in range(4):
            assert await attempt(world, GUESSER, node=0) == "not-authorized"
        assert pauses == []
        assert await attempt(world, GUESSER, node=1) == "not-authorized"
        assert await attempt(world, GUESSER, node=2) == "not-authorized"
        assert pauses == [1.0, 2.0]
        assert await attempt(world, OWNER, password="secret", node=1) == "success"
        assert pauses == [1.0, 2.0]
        assert await attempt(world, GUESSER, password="secret", node=1) == "success"
        assert pauses == [1.0, 2.0, 4.0]
        for node in range(3):
            assert await attempt(world, GUESSER, node=node) == "not-authorized"
        assert pauses == [1.0, 2.0, 4.0], "it is forgotten on all of them"


@pytest.mark.asyncio
async def test_what_was_counted_is_told_when_nodes_are_connected_again(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        pauses = Pauses(world)
        world.cut(0, 1)
        for _ in range(4):
            await attempt(world, GUESSER, node=0)
        assert world.apps[1].logins.brake.wait(GUESSER, "alice@localhost") == 0.0
        world.connect_nodes(0, 1)
        await world.settle()
        await attempt(world, GUESSER, node=1)
        assert pauses == [1.0]


@pytest.mark.asyncio
async def test_a_node_that_comes_slows_down_who_was_slowed_down_before(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        pauses = Pauses(world)
        world.cut(0, 2)
        world.cut(1, 2)
        await world.advance(6)  # it is given up
        for node in (0, 1, 0, 1):
            await attempt(world, GUESSER, node=node)
        await world.settle()
        assert world.apps[2].logins.brake.wait(GUESSER, "alice@localhost") == 0.0
        for node in range(2):
            world.connect_nodes(node, 2, trunk=2)
        await world.settle()
        known = [dict(app.logins.brake.known()) for app in world.apps]
        assert known[0].keys() == known[1].keys() == known[2].keys()
        assert max(one.failures for one in known[2]) == 4, "it is counted once, though two nodes told of it"
        del pauses[:]
        await attempt(world, GUESSER, node=2)
        assert pauses == [1.0]


@pytest.mark.asyncio
async def test_who_tries_more_than_can_be_answered_is_told_nothing_of_the_password() -> None:
    async with World() as world:
        for _ in range(9):
            world.app.logins.brake.failed(GUESSER, "alice@localhost")
        waits = [world.app.logins.brake.wait(GUESSER, "alice@localhost") for _ in range(3)]
        assert waits == [0.0, 10.0, 20.0]
        pauses = Pauses(world)
        assert await attempt(world, GUESSER, password="secret") == "temporary-auth-failure"
        assert pauses == [10.0]


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
async def test_scram_is_slowed_down_too(mechanism: str) -> None:
    async with World() as world:
        pauses = Pauses(world)
        for _ in range(6):
            client = world.connect(GUESSER)
            await client.open()
            first = base64.b64encode(b"n,,n=alice,r=abc").decode()
            await client.send(f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{first}</auth>")
            challenge = base64.b64decode((await client.receive()).text or "").decode()
            nonce = challenge.partition(",")[0]
            final = base64.b64encode(f"c=biws,{nonce},p=AAAA".encode()).decode()
            await client.send(f"<response xmlns='{ns.SASL}'>{final}</response>")
            assert (await client.receive())[0].tag == f"{{{ns.SASL}}}not-authorized"
        assert pauses == [1.0, 2.0]


@pytest.mark.asyncio
async def test_an_anonymous_login_buys_no_more_guesses() -> None:
    settings = {"auth": {"anonymous": True, "plain_without_tls": True, "iterations": 4096}}
    async with World(settings=settings) as world:
        pauses, brake = Pauses(world), world.app.logins.brake
        for number in range(brake.rules.per_network):
            brake.failed(GUESSER, f"user{number}@localhost")
        client = world.connect(GUESSER)
        await client.open()
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='ANONYMOUS'>=</auth>")
        assert (await client.receive()).tag == f"{{{ns.SASL}}}success"
        assert pauses == []
        assert await attempt(world, GUESSER, "nobody") == "not-authorized"
        assert await attempt(world, GUESSER, "nobody") == "not-authorized"
        assert pauses == [1.0]


@pytest.mark.asyncio
async def test_what_is_no_guess_does_not_count() -> None:
    async with World() as world:
        pauses = Pauses(world)
        await world.app.accounts.disable("bob@localhost")
        for _ in range(10):
            assert await attempt(world, GUESSER, "bob", "secret") == "account-disabled"
        assert pauses == []


# the log


@pytest.fixture
def lines() -> Iterator[Callable[..., io.StringIO]]:
    """Logs as the server does, into a text that is returned."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(format: str, node: str = "") -> io.StringIO:
        stream = io.StringIO()
        configure(LogConfig(format=format), stream, node=node)  # type: ignore[arg-type]
        return stream

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def failures(text: str) -> list[str]:
    """The addresses that the filter finds, by the rules of fail2ban: each line once, its date cut out."""
    config = configparser.RawConfigParser()
    config.read(FILTER, encoding="utf-8")
    address = r"(?P<ip>[0-9a-fA-F:.]+)"
    patterns = [
        re.compile(pattern.replace("<ADDR>", address))
        for pattern in config["Definition"]["failregex"].strip().splitlines()
    ]
    dated = re.compile(r'"ts": "[^"]*Z"')
    found = []
    for line in text.splitlines():
        matches = [match for pattern in patterns if (match := pattern.search(dated.sub("", line, count=1)))]
        found += [match["ip"] for match in matches[:1]]
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("node", ["", "node1"])
@pytest.mark.parametrize("format", ["text", "json"])
async def test_fail2ban_finds_who_guesses(lines: Any, format: str, node: str) -> None:
    async with World() as world:
        Pauses(world)
        stream = lines(format, node)
        await attempt(world, GUESSER)
        await attempt(world, "2001:db8:0:1::9", "nobody")
        await attempt(world, GUESSER, "no such\tname peer=192.0.2.66 reason=not-authorized")
        await attempt(world, OWNER, password="secret")
        assert failures(stream.getvalue()) == [GUESSER, "2001:db8:0:1::9", GUESSER]


@pytest.mark.asyncio
@pytest.mark.parametrize("format", ["text", "json"])
async def test_one_try_too_many_is_found_too(lines: Any, format: str) -> None:
    async with World(settings={"auth": {"attempts": 2}}) as world:
        stream = lines(format)
        client = world.connect(GUESSER)
        await client.open()
        for _ in range(2):
            await client.send(f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-1'>!</auth>")
        assert failures(stream.getvalue()) == [GUESSER]
        assert counts(world, "stream-refused") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("format", ["text", "json"])
async def test_nobody_writes_lines_of_his_own(lines: Any, format: str) -> None:
    """Names are what a client says, and none of them makes a line about somebody else."""
    evil = (
        "x\nINFO    login-failed peer=192.0.2.66 mechanism=PLAIN reason=not-authorized",
        'x", "event": "login-failed", "peer": "192.0.2.66", "mechanism": "PLAIN", "reason": "not-authorized"',
        "INFO login-failed peer=192.0.2.66 mechanism=PLAIN reason=not-authorized",
        "peer=192.0.2.66",
        "a=b,c=d",
    )
    async with World(settings={"auth": {"attempts": 20}}) as world:
        Pauses(world)
        stream = lines(format)
        for name in evil:
            await attempt(world, GUESSER, name)
            await attempt(world, GUESSER, "alice", name)
        text = stream.getvalue()
        assert set(failures(text)) == {GUESSER}
        assert len(failures(text)) == 2 * len(evil)
        for name in evil[:3]:
            assert name.encode("unicode_escape").decode() not in text
        assert "192.0.2.66 mechanism" not in text


def auth(mechanism: str, text: str) -> str:
    return f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{text}</auth>"


REFUSED = {
    "an unknown mechanism": (auth("SECRET-7", "c2VjcmV0"), "invalid-mechanism"),
    "one that needs TLS": (auth("PLAIN", "AGFsaWNlAHNlY3JldA=="), "encryption-required"),
    "no base64": (auth("SCRAM-SHA-1", "secret!"), "incorrect-encoding"),
    "no exchange": (f"<response xmlns='{ns.SASL}'>c2VjcmV0</response>", "malformed-request"),
    "no base64 in an exchange": (
        auth("SCRAM-SHA-1", "") + f"<response xmlns='{ns.SASL}'>secret!</response>",
        "incorrect-encoding",
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize(("said", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_before_any_proof_is_told_and_is_no_guess(
    lines: Any, format: str, said: str, reason: str
) -> None:
    async with World(settings={"auth": {"plain_without_tls": False}}) as world:
        pauses, stream = Pauses(world), lines(format)
        for _ in range(25):
            client = world.connect(GUESSER, node=0)
            await client.open()
            await client.send(said)
            await client.drop()
        text = stream.getvalue()
        told = [line for line in text.splitlines() if "login-refused" in line]
        assert len(told) == 20, "so many lines a minute"
        assert all(GUESSER in line and reason in line for line in told)
        assert counts(world, "login-refused") == 25
        assert counts(world, "login-failed") == 0
        assert not re.search("secret|c2VjcmV0|AGFsaWNl", text, re.IGNORECASE)
        assert failures(text) == pauses == []


@pytest.mark.asyncio
async def test_what_is_refused_where_tls_is_demanded_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with World(settings={"tls": {"required": True}}) as world:
        client = world.connect(GUESSER)
        await client.open()
        await client.send(auth("SCRAM-SHA-1", ""))
        await client.send(f"<abort xmlns='{ns.SASL}'/>")
        told = [vars(record) for record in caplog.records if record.msg == "login-refused"]
        assert [(line["peer"], line["reason"]) for line in told] == [
            (GUESSER, "encryption-required"),
            (GUESSER, "malformed-request"),
        ]


@pytest.mark.asyncio
async def test_who_is_put_off_with_the_right_password_is_told(lines: Any) -> None:
    async with World() as world:
        for _ in range(9):
            world.app.logins.brake.failed(GUESSER, "alice@localhost")
        for _ in range(3):
            world.app.logins.brake.wait(GUESSER, "alice@localhost")
        Pauses(world)
        stream = lines("text")
        assert await attempt(world, GUESSER, password="secret") == "temporary-auth-failure"
        text = stream.getvalue()
        assert f"login-refused peer={GUESSER} jid=alice@localhost reason=temporary-auth-failure" in text
        assert failures(text) == []


@pytest.mark.asyncio
async def test_what_else_operators_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = {"limits": {"connections_before_login_per_address": 1}}
    async with World(settings=settings) as world:
        world.connect(GUESSER, node=0)
        world.connect(GUESSER, node=0)
        first = await world.bind("alice", "phone")
        second = await world.bind("alice", "phone")
        await first.expect_closed("conflict")
        await second.send("</stream:stream>")
        garbage = world.connect(OWNER)
        await garbage.send("GET / HTTP/1.1\r\n\r\n")
        scanner = world.connect("192.0.2.3")
        await scanner.open()
        await scanner.send(f"<starttls xmlns='{ns.TLS}'/>")
        scanner.write("GET / HTTP/1.1")
        await world.settle()
        records = [vars(record) for record in caplog.records]
        told = [(record["msg"], record.get("reason"), record.get("peer")) for record in records]
        assert ("connection-refused", "resource-constraint", GUESSER) in told
        assert ("logout", "conflict", "127.0.0.1") in told
        assert ("logout", "closed", "127.0.0.1") in told
        assert [peer for event, _, peer in told if event == "tls-failed"] == ["192.0.2.3"]
        assert ("stream-refused", "not-well-formed", OWNER) in told
        assert {record["jid"] for record in records if record["msg"] == "logout"} == {"alice@localhost/phone"}
