"""Asks others by HTTP, without being led where nobody should be led: each address is looked at before it is
connected to, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from xmppd.parts.http import HttpAnswer, HttpFailed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""RFC 6052, 8215: the last four bytes are an address of IPv4."""
COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
"""RFC 4291 2.5.5.1, out of use."""
NOT_FOR_ALL: Final = (
    ipaddress.ip_network(
        "168.63.129.16/32"
    ),  # what a cloud tells its machines, at an address that looks public
    ipaddress.ip_network("192.88.99.0/24"),  # relays to 6to4, out of use
    ipaddress.ip_network("fec0::/10"),  # site-local, out of use
)
CONNECTIONS: Final = 64


class Guard:
    """Says which addresses may be connected to: public ones, and those of the `allowed` networks."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(ipaddress.ip_network(text) for text in allowed)

    def is_allowed(self, address: Address) -> bool:
        """Whether it is in a network that was named."""
        return any(address.version == net.version and address in net for net in self._allowed)

    def may(self, address: Address) -> bool:
        """Whether it may be connected to; of one that stands for another both are looked at."""
        if self.is_allowed(address):
            return True
        if isinstance(address, ipaddress.IPv6Address):
            inner = meant(address)
            if inner is not None:
                return self.may(inner)
        return (
            address.is_global
            and not address.is_multicast
            and not address.is_reserved
            and not any(address.version == net.version and address in net for net in NOT_FOR_ALL)
        )


def meant(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address of IPv4 that one of IPv6 stands for, if it does."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in net for net in NAT64) or (address in COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def literal(host: str) -> Address | None:
    """The address that a host of a URL is; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


class Refused(OSError):
    """None of the addresses of a host may be connected to."""


class GuardedResolver(AbstractResolver):
    """Gives the addresses of a name that may be connected to: those, and no others, are. So a name that says
    one thing when it is looked at and another when it is connected to has no chance.
    """

    def __init__(self, guard: Guard, is_plain: bool) -> None:
        self._guard = guard
        self._is_plain = is_plain

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """OSError where there is none."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, where in found:
            text = str(where[0])
            address = ipaddress.ip_address(text.partition("%")[0])
            if self._guard.is_allowed(address) if self._is_plain else self._guard.may(address):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=text,
                        port=port,
                        family=kind,
                        proto=protocol,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                )
        if not results:
            raise Refused(f"{host} has no address that may be connected to")
        return results

    async def close(self) -> None:
        """There is nothing to close."""


class Client:
    """See `xmppd.parts.http.HttpClient`. Connections are kept, to the addresses that were looked at."""

    def __init__(
        self,
        allowed: Sequence[str] = (),
        seconds: float = 10.0,
        answer_bytes: int = 65_536,
        ca_file: str = "",
    ) -> None:
        self._guard = Guard(allowed)
        self._seconds = seconds
        self._answer_bytes = answer_bytes
        self._ca_file = ca_file
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def check(self, url: str) -> None:
        """ValueError for a URL that is never asked."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("the URL cannot be read") from None
        if parts.scheme not in ("https", "http") or not host:
            raise ValueError("the URL must begin with https:// and a host")
        if not url.isascii() or any(sign <= " " or sign in "\\\x7f" for sign in url):
            raise ValueError("the URL must be plain ASCII")
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL must have no user and no password")
        if parts.fragment:
            raise ValueError("the URL must have no fragment")
        address = literal(host)
        if address is not None and not self._may(parts.scheme, address):
            raise ValueError("the URL leads to an address that may not be connected to")

    def _may(self, scheme: str, address: Address) -> bool:
        return self._guard.may(address) if scheme == "https" else self._guard.is_allowed(address)

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpAnswer:
        """Ask for what is there, and read it; HttpFailed."""
        return await self._ask("GET", url, None, headers)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Send a body, and read what is answered; HttpFailed."""
        return await self._ask("POST", url, body, headers)

    async def _ask(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
        try:
            self.check(url)
        except ValueError as error:
            raise HttpFailed(str(error), is_refused=True) from None
        session = self._session(urlsplit(url).scheme)
        try:
            async with session.request(
                method, url, data=body, headers=dict(headers), allow_redirects=False
            ) as response:
                read = b""
                async for piece in response.content.iter_any():
                    read += piece
                    if len(read) > self._answer_bytes:
                        response.close()  # nobody waits for the rest
                        break
                named = {name.lower(): value for name, value in response.headers.items()}
                return HttpAnswer(response.status, named, read[: self._answer_bytes])
        except TimeoutError:
            raise HttpFailed("there was no answer in time") from None
        except Refused as error:
            raise HttpFailed(str(error), is_refused=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            raise HttpFailed(why(error), is_refused=isinstance(cause, Refused)) from None

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        found = self._sessions.get(scheme)
        if found is None:
            context: Any = ssl.create_default_context(cafile=self._ca_file or None)
            connector = aiohttp.TCPConnector(
                resolver=GuardedResolver(self._guard, scheme == "http"),
                use_dns_cache=False,
                limit=CONNECTIONS,
                keepalive_timeout=30.0,
                ssl=context,
            )
            found = self._sessions[scheme] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding"),
            )
        return found

    async def close(self) -> None:
        """Cut what is under way."""
        sessions, self._sessions = [*self._sessions.values()], {}
        for session in sessions:
            await session.close()


def why(error: Exception) -> str:
    """One sentence that names no secrets."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not to be trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it cannot be connected to ({error.os_error.strerror or error.os_error})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it ended the connection without an answer"
    return f"the request failed ({type(error).__name__})"
