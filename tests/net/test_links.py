"""A stream knows neither TCP nor the long document: it runs as well over frames of one element each (RFC
7395).
"""

import base64
import re

import pytest

from xmppd import ns
from xmppd.net.c2s.stream import Stream
from xmppd.testing import PASSWORD, World
from xmppd.xml.build import escape_attribute
from xmppd.xml.scan import Scanner, StreamClose, StreamOpen

FRAMES = "urn:ietf:params:xml:ns:xmpp-framing"
CLOSE = f"<close xmlns='{FRAMES}'/>".encode()
DOCUMENT = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' version='1.0'>".encode()
START = re.compile(rb"<([\w:]+)([^>]*?)(/?)>")


class FrameFraming:
    """RFC 7395: `<open/>`, `<close/>`, and one element in each frame."""

    def __init__(self, engine, limits):
        self.limits, self.stepwise = limits, True
        self._engine = engine
        self._scanner = None

    def restart(self, *, discard=False):
        self._scanner = None

    def feed(self, data):
        if not data:
            return []
        if data.startswith(b"<close "):
            return [StreamClose()]
        if data.startswith(b"<open "):
            attrs = dict(re.findall(r"([\w:]+)='([^']*)'", data.decode()))
            self._scanner = Scanner(self._engine, self.limits)
            self._scanner.feed(DOCUMENT)
            return [StreamOpen(attrs)]
        assert self._scanner is not None
        self._scanner.limits = self.limits
        return self._scanner.feed(data)

    def header(self, domain, to, lang):
        return f"<open xmlns='{FRAMES}' from='{escape_attribute(domain)}' id='x' version='1.0'/>".encode()

    def end(self):
        return CLOSE


def declared(element):
    """An element with its namespace (RFC 7395 3.3.3)."""
    name, rest = START.match(element)[1], START.match(element)[2]
    if name.startswith(b"stream:"):
        return element.replace(b"<" + name, b"<%b xmlns:stream='%b'" % (name, ns.STREAM.encode()), 1)
    if b" xmlns=" in rest:
        return element
    return element.replace(b"<" + name, b"<%b xmlns='%b'" % (name, ns.CLIENT.encode()), 1)


class FrameLink:
    """A WebSocket in memory."""

    kind, security = "websocket", "direct"
    encryption, unsent = ("TLSv1.3", "TLS_AES_256_GCM_SHA384"), 0
    peer, secure, can_encrypt, clogged, heard = "192.0.2.1", True, False, False, 0.0

    def __init__(self, world):
        self.frames = []
        self.ending_since = None
        self.stream = Stream(
            world.app.service, self, FrameFraming(world.app.service.engine, world.app.service.limits)
        )
        self.stream.begun()

    @property
    def is_over(self):
        return self.ending_since is not None

    def write(self, data):
        if not self.is_over:
            self.frames.append(declared(data))

    def write_all(self, elements):
        for element in elements:
            self.write(element)

    def nudge(self):
        self.frames.append("ping")

    def finish(self, last):
        self.write_all(last)
        self.ending_since = 0.0

    def regulate(self):
        pass

    def cut(self):
        self.stream.broken()

    def channel_bindings(self):
        return {}

    def said(self):
        """The frames since the last call."""
        found, self.frames = self.frames, []
        return found


OPEN = f"<open xmlns='{FRAMES}' to='localhost' version='1.0'/>".encode()


async def logged_in(world, resource):
    """A link whose client has bound a resource."""
    link = FrameLink(world)
    initial = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()
    bind = f"<bind xmlns='{ns.BIND}'><resource>{resource}</resource></bind>"
    for frame in (
        OPEN,
        f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>".encode(),
        OPEN,
        f"<iq xmlns='{ns.CLIENT}' type='set' id='b'>{bind}</iq>".encode(),
    ):
        link.stream.received(frame)
        await world.settle()
    return link


@pytest.mark.asyncio
async def test_a_client_logs_in_and_talks_in_frames_of_one_element_each():
    async with World() as world:
        link, bob = await logged_in(world, "web"), await world.login("bob")
        names = [START.match(frame)[1] for frame in link.said()]
        assert names == [b"open", b"stream:features", b"success", b"open", b"stream:features", b"iq"]

        body = "<body>hello</body>"
        link.stream.received(
            f"<message xmlns='{ns.CLIENT}' to='{bob.jid}' type='chat'>{body}</message>".encode()
        )
        sender = "alice@localhost/web"
        await bob.expect(f"<message from='{sender}' to='{bob.jid}' type='chat'>{body}</message>")

        await bob.send(f"<message to='{sender}'/>" * 2)
        one, two = link.said()
        assert one == two == f"<message xmlns='{ns.CLIENT}' from='{bob.jid}' to='{sender}'/>".encode()


@pytest.mark.asyncio
async def test_errors_and_ends_are_frames_of_their_own():
    async with World() as world:
        link = await logged_in(world, "web")
        link.said()
        link.stream.received(b"<pubsub xmlns='urn:nothing'/>")
        error, end = link.said()
        assert error.startswith(f"<stream:error xmlns:stream='{ns.STREAM}'>".encode()) and end == CLOSE
        assert link.is_over and not world.app.sessions.by_full


@pytest.mark.asyncio
async def test_a_client_closes_by_a_frame():
    async with World() as world:
        link = await logged_in(world, "web")
        link.said()
        link.stream.received(CLOSE)
        assert link.said() == [CLOSE] and not world.app.sessions.by_full


@pytest.mark.asyncio
async def test_what_is_no_link_of_tcp_may_offer_no_tls():
    async with World(settings={"tls": {"required": True}}) as world:
        link = FrameLink(world)
        link.stream.received(OPEN)
        features = link.said()[-1]
        assert b"starttls" not in features and b"mechanisms" in features
