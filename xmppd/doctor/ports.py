"""Whether who is sent to a port gets in: TCP, the stream, TLS, and a certificate that is believed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from xmppd import ns
from xmppd.doctor.advice import Advice
from xmppd.net.certificates import ascii_name
from xmppd.text import host_and_port

SECONDS = 3.0
"""How long one address may take for all of it."""

MOST_BYTES = 65_536
"""More than any server says before TLS."""

END = b"</stream:features>"
SOON_DAYS = 14
"""A certificate that ends sooner should be a new one by now."""


class Place(NamedTuple):
    """A port at one address, for clients of a domain; `must_be_believed`: its certificate is looked at as a
    client does.
    """

    domain: str
    address: str
    port: int
    direct: bool
    must_be_believed: bool = True


class _Refused(Exception):
    """How far it went, in words, and what to do."""


async def knock(place: Place, trust: ssl.SSLContext) -> Advice:
    """Do what a client does until it would log in. `trust` holds whom clients believe."""
    where = host_and_port(place.address, place.port)
    about = f"{where} for {place.domain}"
    started = time.monotonic()
    try:
        async with asyncio.timeout(SECONDS):
            end = await _reach(place, trust)
    except TimeoutError:
        text = f"no answer within {SECONDS:g} s"
        return Advice("error", about, text, "a firewall, or a router that leads nowhere from inside")
    except _Refused as error:
        return Advice("error", about, str(error.args[0]), error.args[1])
    except ssl.SSLCertVerificationError as error:
        text = f"its certificate is not believed: {error.verify_message}"
        return Advice("error", about, text, "see the certificate of this domain, and its chain")
    except ssl.SSLError as error:
        text = f"TLS failed: {error.reason or error}"
        return Advice("error", about, text, "something else listens there, or tls.ciphers suits nobody")
    except (OSError, EOFError) as error:
        text = f"cannot be reached: {_reason(error)}"
        return Advice("error", about, text, "does the server listen, and a firewall let clients through?")
    milliseconds = (time.monotonic() - started) * 1000
    days = int((end - time.time()) // 86400) if end else None
    if days is not None and days < SOON_DAYS:
        return Advice("warning", about, f"the certificate ends in {days} days", "renew it")
    kind = "TLS" if place.direct else "STARTTLS"
    return Advice("ok", about, f"{kind} in {milliseconds:.0f} ms" + ("" if end else ", not verified"))


def _reason(error: OSError | EOFError) -> str:
    code = error.errno if isinstance(error, OSError) else None
    return os.strerror(code).lower() if code else str(error) or type(error).__name__


async def _reach(place: Place, trust: ssl.SSLContext) -> float:
    """When the certificate ends, in seconds since the epoch; 0 when it was not verified."""
    context = trust if place.must_be_believed else _believer()
    name = ascii_name(place.domain)
    async with _connected(place, context if place.direct else None, name) as (reader, writer):
        await _features(reader, writer, place)
        if not place.direct:
            writer.write(f"<starttls xmlns='{ns.TLS}'/>".encode())
            answer = await reader.readuntil(b">")
            if b"proceed" not in answer:
                raise _Refused("STARTTLS is refused", "is the certificate of this server there?")
            await writer.start_tls(context, server_hostname=name)
        held = writer.get_extra_info("peercert")
        return ssl.cert_time_to_seconds(held["notAfter"]) if held else 0.0


@contextlib.asynccontextmanager
async def _connected(
    place: Place, context: ssl.SSLContext | None, name: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(
        place.address,
        place.port,
        ssl=context,
        server_hostname=name if context is not None else None,
        limit=MOST_BYTES,
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _features(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Place) -> None:
    """Open a stream, and see that it is of this domain and offers what is needed (RFC 6120 4.3, 5.4)."""
    head = (
        f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' version='1.0' "
        f"to={quoteattr(place.domain)}>"
    )
    writer.write(head.encode())
    try:
        answer = await reader.readuntil(END)
    except asyncio.IncompleteReadError as error:
        what = error.partial.decode("utf-8", "replace")
        if "host-unknown" in what:
            text = f"the server there does not know {place.domain}"
            raise _Refused(text, "another server, or server.domains lacks it") from None
        raise _Refused(
            "it ended the stream, or speaks no XMPP", "does something else listen there?"
        ) from None
    except asyncio.LimitOverrunError:
        raise _Refused("it speaks no XMPP", "does something else listen there?") from None
    if not place.direct and ns.TLS.encode() not in answer:
        raise _Refused(
            "it offers no STARTTLS", "a listener with `tls: none` must not be reached from outside"
        )


def _believer() -> ssl.SSLContext:
    """Takes any certificate: for one that the server made itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
