"""Whether a port lets clients in, seen from where clients are."""

import asyncio
import contextlib
import ssl
import time

import pytest

from xmppd.doctor.ports import Place, knock
from xmppd.net.certificates import development_certificate

DOMAIN = "example.org"
HEAD = (
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
    b"from='example.org'>"
)
STARTTLS = HEAD + b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"
FEATURES = HEAD + b"<stream:features><mechanisms/></stream:features>"
UNKNOWN = HEAD + b"<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
PROCEED = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
FAILURE = b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"


@pytest.fixture
def pair(tmp_path):
    return development_certificate(tmp_path, [DOMAIN])


def server_context(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def trusting(pair=None):
    return ssl.create_default_context(cafile=str(pair.certificate) if pair else None)


@contextlib.asynccontextmanager
async def peer(answers, *, tls=None, then=None):
    """A server that says one thing after each that it is told, and may go on with TLS; its port."""

    async def serve(reader, writer):
        with contextlib.suppress(OSError, EOFError):
            for answer in answers:
                await reader.readuntil(b">")
                writer.write(answer)
            if then is not None:
                await writer.start_tls(then)
            elif answers and answers[-1] in (UNKNOWN, FAILURE):
                writer.close()
            await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def place(port, **changes):
    return Place(**{"domain": DOMAIN, "address": "127.0.0.1", "port": port, "direct": False, **changes})


@pytest.mark.asyncio
async def test_starttls_with_a_certificate_that_is_believed(pair):
    async with peer([STARTTLS, PROCEED], then=server_context(pair)) as port:
        advice = await knock(place(port), trusting(pair))
    assert advice.level == "ok"
    assert advice.found.startswith("STARTTLS in ") and not advice.found.endswith("not verified")


@pytest.mark.asyncio
async def test_tls_from_the_first_byte(pair):
    async with peer([FEATURES], tls=server_context(pair)) as port:
        advice = await knock(place(port, direct=True), trusting(pair))
    assert (advice.level, advice.found.partition(" in ")[0]) == ("ok", "TLS")


@pytest.mark.asyncio
@pytest.mark.parametrize("direct", [False, True])
async def test_a_certificate_that_nobody_believes_is_an_error_of_its_own(pair, direct):
    server = server_context(pair)
    kind = {"tls": server} if direct else {"then": server}
    async with peer([FEATURES] if direct else [STARTTLS, PROCEED], **kind) as port:
        advice = await knock(place(port, direct=direct), trusting())
        assert (advice.level, advice.found.partition(":")[0]) == ("error", "its certificate is not believed")
        own = await knock(place(port, direct=direct, must_be_believed=False), trusting())
        assert (own.level, own.found.endswith(", not verified")) == ("ok", True)


@pytest.mark.asyncio
async def test_a_certificate_of_somebody_else_is_not_believed(tmp_path):
    other = development_certificate(tmp_path / "other", ["example.com"])
    async with peer([FEATURES], tls=server_context(other)) as port:
        advice = await knock(place(port, direct=True), trusting(other))
    assert advice.level == "error"
    assert "not valid for 'example.org'" in advice.found


@pytest.mark.asyncio
async def test_one_that_ends_soon_is_warned_of(tmp_path):
    soon = time.time() - 360 * 86400
    pair = development_certificate(tmp_path, [DOMAIN], now=lambda: soon)
    async with peer([FEATURES], tls=server_context(pair)) as port:
        advice = await knock(place(port, direct=True), trusting(pair))
    assert advice.level == "warning"
    assert advice.found in ("the certificate ends in 4 days", "the certificate ends in 5 days")


TALK = {
    "another's": ([UNKNOWN], "the server there does not know example.org"),
    "no STARTTLS": ([FEATURES], "it offers no STARTTLS"),
    "refused": ([STARTTLS, FAILURE], "STARTTLS is refused"),
    "no XMPP": ([b"HTTP/1.1 400 Bad Request\r\n" * 5000], "it speaks no XMPP"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("answers", "expected"), TALK.values(), ids=TALK)
async def test_how_far_it_goes_is_said(answers, expected):
    async with peer(answers) as port:
        advice = await knock(place(port), trusting())
    assert (advice.level, advice.found) == ("error", expected)
    assert advice.do


@pytest.mark.asyncio
async def test_nobody_there():
    async with peer([]) as port:
        pass
    advice = await knock(place(port), trusting())
    assert (advice.level, advice.found) == ("error", "cannot be reached: connection refused")


@pytest.mark.asyncio
async def test_who_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("xmppd.doctor.ports.SECONDS", 0.05)
    async with peer([]) as port:
        advice = await knock(place(port), trusting())
    assert (advice.level, advice.found) == ("error", "no answer within 0.05 s")
