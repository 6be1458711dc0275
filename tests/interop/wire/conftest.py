"""A socket with TLS and nothing else: what a client can do that no library would."""

import base64
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scramp import ScramClient

SECONDS = 20.0
"""How long anything may take on a busy machine."""

HEADER = (
    "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xml:lang='en' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
LOCALHOST = "localhost"


class RawClient:
    """One connection. Everything received is in `seen`, what was not yet looked at in `unread`."""

    starttls_element = STARTTLS

    def __init__(self, port: int, domain: str = LOCALHOST) -> None:
        self.domain = domain
        self.socket: socket.socket | ssl.SSLSocket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.seen = b""
        self.unread = b""

    # bytes

    def send(self, text: str | bytes) -> None:
        """Send it in one piece."""
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str) -> re.Match[bytes]:
        """Read up to the end of what fits the pattern."""
        wanted = re.compile(pattern.encode(), re.DOTALL)
        while not (found := wanted.search(self.unread)):
            data = self.socket.recv(65536)
            assert data, f"the server hung up, no {pattern!r} in {self.seen!r}"
            self.seen += data
            self.unread += data
        self.unread = self.unread[found.end() :]
        return found

    def read_to_end(self) -> bytes:
        """All that comes until the server hangs up; ssl.SSLEOFError when TLS does not end first."""
        while data := self.socket.recv(65536):
            self.seen += data
            self.unread += data
        rest, self.unread = self.unread, b""
        return rest

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    # XMPP

    def open(self) -> bytes:
        """Open a stream; its features."""
        self.send(HEADER.format(domain=self.domain))
        self.expect(r"<stream:stream [^>]*>")
        return self.expect(r"<stream:features/>|<stream:features[ >].*?</stream:features>")[0]

    def starttls(self, context: ssl.SSLContext) -> "RawClient":
        """From a new connection to TLS."""
        assert b"starttls" in self.open()
        self.send(STARTTLS)
        self.expect("<proceed [^>]*/>")
        assert self.unread == b""
        return self.wrap(context)

    def wrap(self, context: ssl.SSLContext) -> "RawClient":
        """Shake hands for TLS."""
        self.socket = context.wrap_socket(
            self.socket, server_hostname=self.domain, suppress_ragged_eofs=False
        )
        return self

    def authenticate(self, mechanism: str, initial: bytes | str) -> tuple[str, bytes]:
        """Begin SASL; the name and the content of the answer."""
        self.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{encode(initial)}</auth>")
        return self._sasl_answer()

    def respond(self, response: bytes | str) -> tuple[str, bytes]:
        """Answer a challenge; the name and the content of the next answer."""
        self.send(f"<response xmlns='{SASL}'>{encode(response)}</response>")
        return self._sasl_answer()

    def _sasl_answer(self) -> tuple[str, bytes]:
        answer = self.expect(r"<(success|challenge) xmlns='[^']*'(?:/>|>([^<]*)</\1>)|<failure .*?</failure>")
        if answer[1] is None:
            return "failure", answer[0]
        return answer[1].decode(), base64.b64decode(answer[2] or b"")

    def login(self, account: Any) -> "RawClient":
        """Log in by PLAIN on an encrypted connection, and bind."""
        assert b">PLAIN<" in self.open()
        assert self.authenticate("PLAIN", f"\0{account.name}\0{account.password}")[0] == "success"
        return self.bind()

    def scram(
        self, account: Any, mechanism: str, binding: tuple[str, bytes] | None = None
    ) -> tuple[str, bytes]:
        """SCRAM to its end; the name and the content of the last answer. The server must prove itself too."""
        scram = ScramClient([mechanism], account.name, account.password, channel_binding=binding)
        answer, content = self.authenticate(mechanism, scram.get_client_first())
        if answer == "challenge":
            scram.set_server_first(content.decode())
            answer, content = self.respond(scram.get_client_final())
        if answer == "success":
            scram.set_server_final(content.decode())
        return answer, content

    def bind(self, resource: str = "") -> "RawClient":
        """After login: open the stream anew, and bind."""
        assert b"urn:ietf:params:xml:ns:xmpp-bind" in self.open()
        wanted = f"<resource>{resource}</resource>" if resource else ""
        self.send(
            f"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{wanted}</bind></iq>"
        )
        self.expect(r"<iq [^>]*type=.result.*?<jid>[^<]+</jid>.*?</iq>")
        return self

    @property
    def peer_certificate(self) -> bytes:
        """What the server showed, in DER."""
        assert isinstance(self.socket, ssl.SSLSocket)
        certificate = self.socket.getpeercert(binary_form=True)
        assert certificate
        return certificate


def encode(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode() or "="


@pytest.fixture
def raw(server: Any) -> Iterator[Callable[..., RawClient]]:
    """Makes connections: `raw()` plain, `raw("starttls")` and `raw("direct")` encrypted."""
    made: list[RawClient] = []
    shared = server

    def connect(
        mode: str = "",
        *,
        server: Any = None,
        tls: ssl.SSLContext | None = None,
        domain: str = LOCALHOST,
        port: str = "",
    ) -> RawClient:
        server = server or shared
        client = RawClient(server.ports[port or mode or "starttls"], domain)
        made.append(client)
        if mode == "starttls":
            client.starttls(tls or server.tls())
        elif mode == "direct":
            client.wrap(tls or server.tls())
        return client

    yield connect
    for client in made:
        client.close()
