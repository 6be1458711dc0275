"""slixmpp as a client: everything it receives is kept until a test asks for it."""

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
import pytest_asyncio
from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import XMPPError
from slixmpp.stanza import Iq, Message, Presence, StreamError
from slixmpp.xmlstream import StanzaBase
from terminals import ENTER, Terminal
from tunnels import Tunnel

SECONDS = 20.0
"""How long anything may take on a busy machine."""

PLUGINS = (
    "xep_0012",
    "xep_0016",
    "xep_0030",
    "xep_0049",
    "xep_0050",
    "xep_0054",
    "xep_0092",
    "xep_0133",
    "xep_0191",
    "xep_0199",
    "xep_0202",
    "xep_0203",
    "xep_0377",
)


class LoginRefused(Exception):
    """The server refused all that slixmpp tried."""


class Client:
    """One user's program. Subscriptions are left to the test."""

    def __init__(self, jid: str, password: str, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self.address = address
        self.direct_tls = False
        self.xmpp = ClientXMPP(jid, password)
        self.xmpp.ssl_context = context
        self.xmpp.use_ipv6 = False
        self.xmpp.auto_authorize = None
        self.xmpp.auto_subscribe = False
        for plugin in PLUGINS:
            self.xmpp.register_plugin(plugin)
        self.refusals: list[str] = []
        self.watched: set[str] = set()
        """Namespaces of iq sets that are kept, beside those of rosters."""
        self._inbox: list[StanzaBase] = []
        self._arrived = asyncio.Event()
        self._outcome: asyncio.Future[None] | None = None
        self._gone = asyncio.Event()
        self._gone.set()
        self._fences = 0
        self.xmpp.add_filter("in", self._keep)
        self.xmpp.add_event_handler("connected", lambda _: self._gone.clear())
        self.xmpp.add_event_handler("session_start", lambda _: self._settle(None))
        self.xmpp.add_event_handler("failed_auth", lambda failure: self.refusals.append(failure["condition"]))
        self.xmpp.add_event_handler("failed_all_auth", lambda _: self._settle(LoginRefused()))
        self.xmpp.add_event_handler("ssl_invalid_chain", self._settle)
        self.xmpp.add_event_handler("connection_failed", self._settle)
        self.xmpp.add_event_handler("disconnected", self._disconnected)

    # in and out

    def use_mechanism(self, name: str) -> None:
        """Log in by this one, or not at all."""
        self.xmpp.plugin["feature_mechanisms"].use_mech = name

    @property
    def plugin(self) -> Any:
        """slixmpp's plugins, by name."""
        return self.xmpp.plugin

    @property
    def mechanism(self) -> str:
        """The one that the login used."""
        return str(self.xmpp.plugin["feature_mechanisms"].mech.name)

    @property
    def tls(self) -> ssl.SSLObject:
        """The TLS connection."""
        assert isinstance(self.xmpp.socket, ssl.SSLObject)
        return self.xmpp.socket

    async def bind(self) -> None:
        """Connect, log in and bind; LoginRefused, or the error that stood in the way."""
        self._outcome = asyncio.get_running_loop().create_future()
        self.xmpp.enable_direct_tls = self.direct_tls
        self.xmpp.enable_starttls = not self.direct_tls
        self.xmpp.connect(*self.address)
        async with asyncio.timeout(SECONDS):
            await self._outcome

    async def refused(self) -> list[str]:
        """Log in, which must fail; the conditions that SASL gave."""
        with pytest.raises(LoginRefused):
            await self.bind()
        assert not self.xmpp.authenticated
        return self.refusals

    async def login(self, **presence: Any) -> "Client":
        """Bind, get the roster, and become available; own presence is taken from what was received."""
        await self.bind()
        await self.xmpp.get_roster()
        await self.appear(**presence)
        return self

    async def appear(self, **presence: Any) -> None:
        """Send presence, and wait until the server has shown it to ourselves."""
        self.xmpp.send_presence(**presence)
        await self.presence(self.jid)

    async def logout(self) -> None:
        """End the stream; the server must end its own."""
        self.xmpp.disconnect(wait=SECONDS)
        await self.disconnected()

    async def disconnected(self) -> None:
        """Wait until the connection is gone."""
        async with asyncio.timeout(SECONDS):
            await self._gone.wait()

    async def close(self) -> None:
        """Leave, whatever state it is in, and leave nothing of slixmpp running."""
        self.xmpp.cancel_connection_attempt()
        if not self._gone.is_set():
            await self.logout()
        if self.xmpp._run_out_filters is not None:
            self.xmpp._run_out_filters.cancel()

    def _disconnected(self, reason: Any) -> None:
        self._gone.set()
        self._settle(reason if isinstance(reason, Exception) else ConnectionResetError(str(reason)))

    def _settle(self, error: Exception | None) -> None:
        if self._outcome is not None and not self._outcome.done():
            if error is None:
                self._outcome.set_result(None)
            else:
                self.xmpp.cancel_connection_attempt()
                self._outcome.set_exception(error)

    @property
    def jid(self) -> str:
        """Our full JID."""
        return str(self.xmpp.boundjid)

    @property
    def bare(self) -> str:
        """Our account."""
        return str(self.xmpp.boundjid.bare)

    # receiving

    def _keep(self, stanza: StanzaBase) -> StanzaBase:
        is_push = (
            isinstance(stanza, Iq)
            and stanza["type"] == "set"
            and (bool(stanza.get_plugin("roster", check=True)) or payload_of(stanza)[0] in self.watched)
        )
        if isinstance(stanza, Message | Presence | StreamError) or is_push:
            self._inbox.append(stanza)
            self._arrived.set()
        return stanza

    async def take(self, what: str, fits: Callable[[Any], bool]) -> Any:
        """The first stanza received that fits; it is taken out."""
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    for stanza in self._inbox:
                        if fits(stanza):
                            self._inbox.remove(stanza)
                            return stanza
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"{self.jid} did not receive {what}, but {self.seen}") from None

    @property
    def seen(self) -> list[str]:
        """What was received and not taken."""
        return [str(stanza) for stanza in self._inbox]

    async def message(self, sender: "Client | str") -> Message:
        """The next message of a sender; a bare JID is any resource of that account."""
        return await self.take(
            f"a message of {sender}", lambda s: isinstance(s, Message) and is_from(s, address_of(sender))
        )

    async def presence(self, sender: "Client | str", kind: str = "") -> Presence:
        """The next presence of a sender: of a type as it stands in the stanza, "" for available."""
        return await self.take(
            f"presence {kind!r} of {sender}",
            lambda s: (
                isinstance(s, Presence) and s.xml.get("type", "") == kind and is_from(s, address_of(sender))
            ),
        )

    async def push(self, contact: "Client | str") -> dict[str, Any]:
        """What the next roster push about a contact says: subscription, ask, name, groups."""
        jid = JID(contact if isinstance(contact, str) else contact.bare)
        stanza = await self.take(
            f"a roster push of {jid}", lambda s: isinstance(s, Iq) and jid in s["roster"]["items"]
        )
        return item_of(stanza, jid)

    async def pushed(self, tag: str) -> Element:
        """The payload of the next iq set that has this one, of a namespace that is `watched`."""
        stanza = await self.take(f"a push of {tag}", lambda s: isinstance(s, Iq) and payload_of(s)[1] == tag)
        return stanza.xml[0]

    async def roster(self) -> dict[str, dict[str, Any]]:
        """The roster as the server has it now, by contact."""
        iq = self.xmpp.make_iq_get()
        iq.enable("roster")
        stanza = await iq.send(timeout=SECONDS)
        return {str(jid): item_of(stanza, jid) for jid in stanza["roster"]["items"]}

    async def stream_error(self) -> str:
        """The condition of the stream error that the server sent."""
        return str((await self.take("a stream error", lambda s: isinstance(s, StreamError)))["condition"])

    async def expect_nothing(self) -> None:
        """Nothing more may be under way: a message to ourselves arrives behind it, and it is all there is."""
        self._fences += 1
        self.xmpp.send_message(mto=self.jid, mbody=f"fence {self._fences}")
        fence = await self.message(self.jid)
        assert fence["body"] == f"fence {self._fences}"
        assert self.seen == []

    async def befriend(self, other: "Client") -> None:
        """Subscribe to each other; what both receive on the way is taken."""
        for one, two in ((self, other), (other, self)):
            one.xmpp.send_presence_subscription(pto=two.bare, ptype="subscribe")
            await two.presence(one.bare, "subscribe")
            two.xmpp.send_presence_subscription(pto=one.bare, ptype="subscribed")
            await one.presence(two.jid)
        for one, two in ((self, other), (other, self)):
            while (await one.push(two))["subscription"] != "both":
                pass
            await one.presence(two.bare, "subscribed")
            await one.expect_nothing()


def payload_of(iq: Iq) -> tuple[str, str]:
    """The namespace of what stands in an iq, and its name with that."""
    tag = str(iq.xml[0].tag) if len(iq.xml) else ""
    return tag.removeprefix("{").partition("}")[0], tag


def address_of(sender: Client | str) -> str:
    return sender if isinstance(sender, str) else sender.jid


def is_from(stanza: StanzaBase, sender: str) -> bool:
    return sender == (str(stanza["from"]) if "/" in sender else stanza["from"].bare)


def item_of(iq: Iq, jid: JID) -> dict[str, Any]:
    item = iq["roster"]["items"][jid]
    return {
        "subscription": item["subscription"],
        "ask": item["ask"],
        "name": item["name"],
        "groups": sorted(item["groups"]),
    }


Connect = Callable[..., Client]


@pytest_asyncio.fixture
async def client(server: Any) -> AsyncIterator[Connect]:
    """Makes clients of accounts: `client(account, resource="desk", direct_tls=True, server=other)`."""
    made: list[Client] = []
    shared = server

    def make(
        account: Any, resource: str = "", *, direct_tls: bool = False, server: Any = None, jid: str = ""
    ) -> Client:
        server = server or shared
        address = ("127.0.0.1", server.ports["direct" if direct_tls else "starttls"])
        jid = jid or (f"{account.jid}/{resource}" if resource else account.jid)
        one = Client(jid, account.password, address, server.tls())
        one.direct_tls = direct_tls
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()


@pytest_asyncio.fixture
async def pair(server: Any, client: Connect) -> tuple[Client, Client]:
    """Two users who are available, and strangers to each other."""
    alice, bob = client(server.account("alice"), "desk"), client(server.account("bob"), "phone")
    return await alice.login(), await bob.login()


@pytest_asyncio.fixture
async def friends(pair: tuple[Client, Client]) -> tuple[Client, Client]:
    """Two users who are available and see each other's presence."""
    alice, bob = pair
    await alice.befriend(bob)
    return pair


@pytest_asyncio.fixture
async def tunnel() -> AsyncIterator[Callable[[Any], Awaitable[Tunnel]]]:
    """Makes ways to a server that can be lost: `await tunnel(server)`."""
    made: list[Tunnel] = []

    async def make(server: Any) -> Tunnel:
        made.append(Tunnel(server.ports["starttls"]))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def refused() -> Callable[[Awaitable[Any]], Awaitable[tuple[str, str]]]:
    """Awaits an iq that must be answered with an error; its type and condition."""

    async def ask(answer: Awaitable[Any]) -> tuple[str, str]:
        with pytest.raises(XMPPError) as caught:
            await answer
        return caught.value.etype, caught.value.condition

    return ask


@pytest.fixture
def program(server: Any, tmp_path: Path) -> Callable[[str], tuple[str, dict[str, str]]]:
    """The path of a program of Debian's, and the environment to run it in: it trusts our server only."""

    def find(name: str) -> tuple[str, dict[str, str]]:
        path = shutil.which(name)
        if path is None:
            pytest.fail(f"{name} is not installed: scripts/test installs it (Debian: apt-get install {name})")
        more = {"HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        return path, {**os.environ, **more, "SSL_CERT_FILE": str(server.certificate)}

    return find


@pytest.fixture
def profanity(program: Callable[[str], tuple[str, dict[str, str]]]) -> Any:
    """Starts profanity for an account of a server, which is told `settings` first, and logs in."""
    path, environment = program("profanity")
    started = []

    async def start(server: Any, account: Any, *settings: str) -> Terminal:
        terminal = Terminal([path], {**environment, "SSL_CERT_FILE": str(server.certificate)})
        started.append(terminal)
        await terminal.see("Profanity")
        for setting in settings:
            terminal.type(setting + ENTER)
        terminal.type(f"/connect {account.jid} server 127.0.0.1 port {server.ports['starttls']}{ENTER}")
        await terminal.see("password")
        terminal.type(account.password + ENTER)
        await terminal.see("logged in successfully")
        return terminal

    yield start
    for terminal in started:
        terminal.close()
