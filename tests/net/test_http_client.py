"""Requests to others by HTTP: where they may lead, and where not."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from patience import PATIENCE
from receiver import Receiver

from xmppd.net.certificates import development_certificate, server_context
from xmppd.net.http.client import Client, Guard
from xmppd.parts.http import HttpFailed


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:0:0:0:0:f5ff:fffe",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_where_nobody_may_be_led(text: str) -> None:
    assert not Guard().may(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::101:101", "::ffff:8.8.8.8"]
)
def test_what_is_public(text: str) -> None:
    assert Guard().may(ipaddress.ip_address(text))


def test_networks_that_are_allowed() -> None:
    guard = Guard(("10.1.0.0/16", "fd00::/8"))
    assert guard.may(ipaddress.ip_address("10.1.2.3"))
    assert guard.may(ipaddress.ip_address("::ffff:10.1.2.3"))
    assert guard.may(ipaddress.ip_address("fd00::1"))
    assert not guard.may(ipaddress.ip_address("10.2.0.1"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///path",
        "//example.org/",
        "gopher://example.org/",
        "https://example.org:99999/",
        "https://[::1/",
        "https://example.org/\r\nX: y",
        "https://example.org\\@127.0.0.1/",
        "https://exämple.org/",
        "https://user@example.org/",
        "https://example.org/#fragment",
        "https://127.0.0.1/",
        "https://[::1]/",
        "http://8.8.8.8/",
    ],
)
def test_urls_that_are_never_asked(url: str) -> None:
    with pytest.raises(ValueError, match="the URL"):
        Client().check(url)


LOOPBACK = ("127.0.0.0/8", "::1/128")


def resolving(monkeypatch: pytest.MonkeyPatch, answers: Callable[[str], list[str]]) -> list[str]:
    """Names mean what `answers` says; what was asked for."""
    asked: list[str] = []

    async def getaddrinfo(host, port, **_):
        asked.append(host)
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            (kind[ipaddress.ip_address(one).version], socket.SOCK_STREAM, 6, "", (one, port))
            for one in answers(host)
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", ["127.0.0.1", "169.254.169.254", "10.0.0.1"])
async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    client = Client()
    resolving(monkeypatch, lambda host: [answer])
    with pytest.raises(HttpFailed, match="no address that may be connected to") as caught:
        await client.post("https://hook.example.org/", b"{}", {})
    assert caught.value.is_refused
    await client.close()


@pytest.mark.asyncio
async def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: each connection is one look, and goes to what was seen."""
    async with Receiver() as receiver:
        client = Client(LOOPBACK)
        answers = [["127.0.0.1"], ["10.9.9.9"]]
        asked = resolving(monkeypatch, lambda host: answers.pop(0))
        answer = await client.post(
            receiver.url.replace("127.0.0.1", "hook.example.org"), b'{"events": []}', {}
        )
        assert (answer.status, asked) == (200, ["hook.example.org"])
        await client.close()


@pytest.mark.asyncio
async def test_of_several_addresses_only_those_that_may_be_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver:
        client = Client(("127.0.0.1/32",))
        resolving(monkeypatch, lambda host: ["10.9.9.9", "127.0.0.1", "127.0.0.2"])
        answer = await client.post(
            receiver.url.replace("127.0.0.1", "hook.example.org"), b'{"events": []}', {}
        )
        assert answer.status == 200
        await client.close()


@pytest.mark.asyncio
async def test_plain_http_is_for_networks_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(LOOPBACK)
    resolving(monkeypatch, lambda host: ["8.8.8.8"])
    with pytest.raises(HttpFailed, match="no address that may be"):
        await client.post("http://hook.example.org/", b"", {})
    await client.close()


@pytest.mark.asyncio
async def test_no_redirect_is_followed_and_no_cookie_kept() -> None:
    async with Receiver() as receiver:
        receiver.answer = lambda body: web.Response(
            status=302, headers={"Location": receiver.url, "Set-Cookie": "a=b; Path=/"}
        )
        client = Client(LOOPBACK)
        for _ in range(2):
            assert (await client.post(receiver.url, b'{"events": []}', {})).status == 302
        assert len(receiver.requests) == 2
        assert all("cookie" not in headers for headers, _ in receiver.requests)
        await client.close()


@pytest.mark.asyncio
async def test_an_answer_is_read_up_to_its_bound() -> None:
    async with Receiver(lambda body: web.Response(body=b"x" * 1_000_000)) as receiver:
        client = Client(LOOPBACK, answer_bytes=1000)
        answer = await client.post(receiver.url, b'{"events": []}', {})
        assert (answer.status, len(answer.body)) == (200, 1000)
        await client.close()


@pytest.mark.asyncio
async def test_no_answer_in_time_and_no_answer_at_all() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    for serve, why, seconds in ((silent, "no answer in time", 0.3), (rude, "without an answer", PATIENCE)):
        client = Client(LOOPBACK, seconds=seconds)
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HttpFailed, match=why):
            await client.post(f"http://127.0.0.1:{port}/", b"", {})
        server.close()
        with pytest.raises(HttpFailed, match="cannot be connected to"):
            await client.post(f"http://127.0.0.1:{port}/", b"", {})
    await client.close()


@pytest.mark.asyncio
async def test_a_certificate_that_nobody_vouches_for_or_the_authority_that_was_named(tmp_path: Path) -> None:
    pair = development_certificate(tmp_path, ("localhost",))

    async def nothing(request: web.Request) -> web.Response:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", nothing)
    runner = web.AppRunner(app)
    await runner.setup()
    context = server_context(pair.certificate, pair.key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://localhost:{runner.addresses[0][1]}/"
    strict, trusting = Client(LOOPBACK), Client(LOOPBACK, ca_file=str(pair.certificate))
    with pytest.raises(HttpFailed, match="certificate"):
        await strict.post(url, b"", {})
    assert (await trusting.post(url, b"", {})).status == 204
    await strict.close()
    await trusting.close()
    await runner.cleanup()
