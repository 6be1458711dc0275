"""What RFC 6120 says of streams in passing: exchanges begun anew, errors of clients, resources that cannot
be, and an end for all.
"""

import asyncio
import base64
import time

import pytest

from xmppd import ns
from xmppd.errors import StreamError
from xmppd.net.c2s.service import MAX_REFUSED, PATIENCE_SECONDS
from xmppd.net.c2s.stream import Stream
from xmppd.net.pace import SLICE_SECONDS
from xmppd.testing import PASSWORD, STREAM_HEADER, Client, World

PLAIN = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()
AUTH = f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'/>"
ERROR = f"<stream:error><connection-timeout xmlns='{ns.STREAM_ERRORS}'/></stream:error>"


async def reached(world: World, phase: str) -> Client:
    """A client whose stream stands there."""
    client = world.connect()
    if phase == "header":
        return client
    await client.open()
    if phase == "exchange":
        await client.send(AUTH)
    if phase in ("bind", "bound"):
        await client.authenticate("alice")
        await client.open()
    if phase == "bound":
        await client.bind()
    await client.receive_all()
    return client


@pytest.mark.asyncio
async def test_a_second_auth_begins_the_exchange_anew() -> None:
    async with World() as world:
        client = await reached(world, "exchange")
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{PLAIN}</auth>")
        await client.expect(f"<success xmlns='{ns.SASL}'/>")


@pytest.mark.asyncio
async def test_exchanges_begun_anew_are_tries() -> None:
    async with World() as world:
        client = await reached(world, "exchange")
        for _ in range(4):
            await client.send(AUTH)
        assert [tree.tag for tree in await client.receive_all()] == [f"{{{ns.SASL}}}challenge"] * 4
        await client.send(AUTH)
        await client.expect_closed("policy-violation")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("phase", "tls_required"),
    [("login", True), ("login", False), ("exchange", False), ("bind", False), ("bound", False)],
)
async def test_the_error_of_a_client_ends_its_stream_without_one_of_ours(
    phase: str, tls_required: bool
) -> None:
    async with World(settings={"tls": {"required": tls_required}}) as world:
        client = await reached(world, phase)
        before = len(client.raw)
        await client.send(ERROR + "</stream:stream>")
        await client.expect_closed()
        assert client.raw[before:] == b"</stream:stream>"
        assert not world.app.sessions.by_full


@pytest.mark.asyncio
@pytest.mark.parametrize("wanted", ["x" * 1100, "é" * 600, "a\x7fb", "\u2028", "x" * 1100 + "\u2028"])
async def test_a_resource_that_cannot_be_is_made_to_conform_or_replaced(wanted: str) -> None:
    async with World() as world:
        client = await reached(world, "bind")
        answer = await client.bind(wanted)
        assert answer.get("type") == "result"
        resource = client.jid.partition("/")[2]
        assert 0 < len(resource.encode()) <= 1023
        assert wanted.startswith(resource) or len(resource) == 12
        await client.send(f"<message to='{client.jid}'/>")
        assert (await client.receive()).get("from") == client.jid


@pytest.mark.asyncio
async def test_too_long_a_resource_keeps_its_beginning() -> None:
    async with World() as world:
        client = await reached(world, "bind")
        await client.bind("é" * 600)
        assert client.jid == "alice@localhost/" + "é" * 511


@pytest.mark.asyncio
async def test_the_domain_is_the_same_in_capitals() -> None:
    async with World() as world:
        client = world.connect()
        await client.open("LocalHost")
        await client.authenticate("alice")
        await client.send(STREAM_HEADER.format(domain="LOCALHOST", more=""))
        assert (await client.receive()).tag == f"{{{ns.STREAM}}}features"
        await client.bind("r")
        assert client.jid == "alice@localhost/r"


@pytest.mark.one_node("each process counts its own connections")
@pytest.mark.asyncio
async def test_one_network_of_ipv6_is_one_address() -> None:
    settings = {"limits": {"connections_before_login_per_address": 2}}
    async with World(settings=settings) as world:
        await world.connect("2001:db8:1:2::1").open()
        await world.connect("2001:db8:1:2:ffff::1").open()
        await world.connect("2001:db8:1:2::3").expect_closed("resource-constraint")
        await world.connect("2001:db8:1:3::1").open()
        await world.connect("192.0.2.1").open()
        await world.connect("192.0.2.2").open()


@pytest.mark.asyncio
async def test_who_has_gone_leaves_its_place() -> None:
    settings = {"limits": {"connections_before_login_per_address": 1}}
    async with World(settings=settings) as world:
        for host in range(3):
            client = world.connect(f"2001:db8:1:2::{host}")
            await client.open()
            await client.drop()


@pytest.mark.asyncio
async def test_who_is_refused_takes_nobodys_place() -> None:
    settings = {"limits": {"connections_before_login": 3, "connections_before_login_per_address": 1}}
    async with World(settings=settings) as world:
        refused = [world.connect("192.0.2.1") for _ in range(MAX_REFUSED + 5)]
        assert world.app.service.strangers == 1
        await world.connect("192.0.2.2").open()
        await world.connect("192.0.2.3").open()
        await world.settle()
        assert len(world.app.service._refused) <= MAX_REFUSED
        assert refused[-1].raw.endswith(b"</stream:stream>")
        await world.advance(10)
        assert not world.app.service._refused


@pytest.mark.one_node("each process counts its own connections")
@pytest.mark.asyncio
async def test_who_is_refused_ends_no_login_that_is_late() -> None:
    settings = {"limits": {"connections_before_login": 2, "connections_before_login_per_address": 1}}
    async with World(settings=settings) as world:
        slow, flood = world.connect("192.0.2.1"), world.connect("192.0.2.2")
        await slow.open(), await flood.open()
        await world.advance(PATIENCE_SECONDS + 1)
        await world.connect("192.0.2.2").expect_closed("resource-constraint")
        assert b"<stream:error>" not in slow.raw
        await world.connect("192.0.2.3").open()
        await slow.expect_closed("connection-timeout")


@pytest.mark.asyncio
async def test_an_error_before_the_second_header_is_in_a_stream() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        await client.authenticate("alice")
        before = len(client.raw)
        await client.send(STREAM_HEADER.format(domain="other.example", more=""))
        assert b"<stream:stream " in client.raw[before:].partition(b"<stream:error>")[0]
        await client.expect_closed("host-unknown")


@pytest.mark.one_node("one process is shut down")
@pytest.mark.asyncio
async def test_a_shutdown_sends_all_away_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"limits": {"sessions_per_account": 400}}
    async with World(settings=settings) as world:
        clients = [await world.bind("alice") for _ in range(200)]
        original, told = Stream.depart, []

        def slow(stream: Stream, error: StreamError) -> None:
            end = time.perf_counter() + SLICE_SECONDS / 2
            while time.perf_counter() < end:
                pass
            told.append(stream)
            original(stream, error)

        monkeypatch.setattr(Stream, "depart", slow)
        ending = world.app.jobs.spawn(world.app.service.shut_down())
        await _turns(3)
        assert 0 < len(told) < 20
        newcomer = world.connect()
        await newcomer.expect_closed("system-shutdown")
        await ending
        for client in clients:
            await client.expect_closed("system-shutdown")


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
