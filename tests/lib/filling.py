"""What real clients put into a server before its accounts are moved: friendships, and some of all there is.

Nobody is available meanwhile, so that requests and messages wait.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from bulkclient import Stream
from looks import items_in

from xmppd import ns

NICK: Final = "http://jabber.org/protocol/nick"
ACCOUNTS: Final = int(os.environ.get("XMPPD_TEST_MOVED", "520"))
"""How many accounts a server gets."""

APPROVING: Final = 5
"""Accounts that approve somebody before being asked, where the server knows how."""

AT_ONCE: Final = 16
"""Accounts that are registered at once."""

NAMES: Final = (
    "anna", "boris", "o\\27hara", "space\\20man", "jürgen", "мария", "名無し", "user.name+tag", "0123", "nil",
    "under_score", "-dash-", "100%", "a", "at\\40sign", "true",
)  # fmt: skip
"""Accounts whose names are easily got wrong."""

PASSWORDS: Final = (
    "secret", "two words", "пароль", "密码", "it's \"quoted\"", "<&>", "x" * 200, " edges ", "comma,=2C",
    "pässwörd", "ﬁsh", "a\\b", "%s%d", "null",
)  # fmt: skip
"""`ﬁsh` is hashed as `fish` by old servers."""

TITLES: Final = (
    "Plain", "", "Łukasz Ω", "line\nbreak", "tab\there", "\"double\" & 'single'", "👩‍👩‍👧 family",
    "<b>&amp;</b>", "e\u0301 decomposed", "\u202eright to left", "NULL", "0", "]]>", "x" * 600,
    "back\\slash\\n", "{{{}}}",
)  # fmt: skip

GROUPS: Final = (
    (), ("Friends",), ("Friends", "Work"), ("Ünïcödé 🎉",), ("line\nbreak",), ("tab\there", "Work"),
    ("it's", '"q"', "<&>"), ("__hash", "nil"), ("e\u0301",), tuple(f"group {n}" for n in range(9)),
)  # fmt: skip

ELSEWHERE: Final = (
    "somebody@remote.example", "leser@bücher.example", "o\\27brien@remote.example", "icq.gw.example",
    "123%40x.com@icq.gw.example", "кот@пример.example", "名@remote.example",
)  # fmt: skip

PHOTO: Final = b64encode(bytes(range(256)) * 4).decode()

VCARDS: Final = (
    "<FN>Anna Ångström</FN><N><FAMILY>Ångström</FAMILY><GIVEN>Anna</GIVEN></N><NICKNAME>ann</NICKNAME>",
    '<FN>多 &amp; &lt;b&gt;</FN><NICKNAME>"it\'s" 🎉</NICKNAME>',
    f"<FN>With photo</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>{PHOTO}</BINVAL></PHOTO>",
)

BOOKMARK: Final = (
    "<conference name='Räuber &amp; Co' jid='room@remote.example' autojoin='1'><nick>ann</nick></conference>"
)

PRIVATE: Final = (
    f"<storage xmlns='storage:bookmarks'>{BOOKMARK}</storage>",
    "<roster xmlns='roster:delimiter'>::</roster>",
    "<x xmlns='app:settings' a=\"it's\"><y xmlns='app:other' z='1'>two\nlines</y><y/></x>",
)  # fmt: skip

BLOCKS: Final = ("evil@remote.example", "spam.example", "o\\27brien@remote.example", "leser@bücher.example")


@dataclass
class Filled:
    """What was filled into one domain: `passwords` by user, those whose accounts have all there is, and in
    the end what each is shown of its roster, by user and contact.
    """

    domain: str
    passwords: dict[str, str] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)
    rosters: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def jid(self, user: str) -> str:
        """The bare JID of a user."""
        return f"{user}@{self.domain}"

    @property
    def accounts(self) -> list[tuple[str, str]]:
        """JID and password of those who have all there is."""
        return [(self.jid(user), self.passwords[user]) for user in self.sample]


def pairs(users: Sequence[str], near: int) -> list[tuple[str, str, int]]:
    """Who knows whom: everybody the `near` next ones, and how, a number below nine."""
    count = len(users)
    return [
        (users[i], users[(i + step) % count], (i * near + step) % 9)
        for i in range(count)
        for step in range(1, near + 1)
    ]


class Filling:
    """Fills one server by streams that stay open until `close`."""

    def __init__(self, domain: str, port: int, count: int) -> None:
        self.filled = Filled(domain)
        self._port = port
        for number in range(count):
            user = NAMES[number] if number < len(NAMES) else f"user{number}"
            self.filled.passwords[user] = PASSWORDS[number % len(PASSWORDS)]
        self.users = list(self.filled.passwords)
        self.filled.sample = self.users[:25]
        self.streams: dict[str, Stream] = {}

    async def fill(self, *, approves: bool) -> Filled:
        """Everything. `approves`: whether the server knows pre-approval (RFC 6121 3.4)."""
        await together(AT_ONCE, [self._enter(user) for user in self.users])
        known = pairs(self.users, 3)
        await self._each([self._list(user, known) for user in self.users])
        await self._befriend(known)
        sample = self.filled.sample
        await self._each([self._own(number, user) for number, user in enumerate(sample)])
        await self._ask_in_vain(sample)
        if approves:
            await self._each([self._approve(user) for user in sample[:APPROVING]])
        await self._each([self._look(user) for user in self.users])
        return self.filled

    async def _enter(self, user: str) -> None:
        stream = await Stream(self.filled.domain, self._port).connect()
        self.streams[user] = stream
        await stream.register(user, self.filled.passwords[user])
        await stream.login(user, self.filled.passwords[user])

    async def _each(self, work: list[Awaitable[None]]) -> None:
        await together(AT_ONCE, work)

    async def _list(self, user: str, known: list[tuple[str, str, int]]) -> None:
        """Some contacts are listed before they are asked, or ask: on both sides, on one, or on none."""
        for number, (one, other, _) in enumerate(known):
            if one == user and number % 4:
                await self.streams[user].ask("set", roster_item(self.filled.jid(other), number))
            if other == user and number % 5 == 1:
                await self.streams[user].ask("set", roster_item(self.filled.jid(one), number + 5))

    async def _befriend(self, known: list[tuple[str, str, int]]) -> None:
        """Requests of both directions, then answers."""
        asked = [(a, b) for a, b, kind in known if kind % 3] + [(b, a) for a, b, kind in known if kind // 3]
        granted = [(a, b) for a, b, kind in known if kind % 3 == 2]
        granted += [(b, a) for a, b, kind in known if kind // 3 == 2]
        for number, (one, other) in enumerate(asked):
            status = escape(f"Hi, it's {one} & co 👋") if number % 2 else ""
            inside = f"<status>{status}</status><nick xmlns='{NICK}'>{escape(one)}</nick>" if status else ""
            self._to(one, other, f"<presence type='subscribe' to={{}}>{inside}</presence>")
        await self._all_done()
        for one, other in granted:
            self._to(other, one, "<presence type='subscribed' to={}/>")
        await self._all_done()

    def _to(self, one: str, other: str, stanza: str) -> None:
        self.streams[one].write(stanza.format(quoteattr(self.filled.jid(other))))

    async def _all_done(self) -> None:
        await together(AT_ONCE, [stream.fence() for stream in self.streams.values()])

    async def _own(self, number: int, user: str) -> None:
        """Contacts elsewhere, a vCard, private XML, blocks, and messages for the next one."""
        stream = self.streams[user]
        for which, title in enumerate(TITLES):
            contact = ELSEWHERE[which] if which < len(ELSEWHERE) else f"n{which}@remote.example"
            await stream.ask("set", roster_item(contact, which, title))
        await stream.ask("set", f"<vCard xmlns='vcard-temp'>{VCARDS[number % len(VCARDS)]}</vCard>")
        for element in PRIVATE[: number % 4]:
            await stream.ask("set", f"<query xmlns='{ns.PRIVATE}'>{element}</query>")
        blocked = [f"<item jid={quoteattr(jid)}/>" for jid in BLOCKS[: number % 5]]
        if blocked:
            await stream.ask("set", f"<block xmlns='{ns.BLOCKING}'>{''.join(blocked)}</block>")
        other = self.filled.sample[(number + 1) % len(self.filled.sample)]
        for count in range(number % 4):
            body = escape(f"message {count} of {user}: <&> 'quoted' 🎉\nsecond line")
            self._to(
                user, other, f"<message type='chat' id='m{count}' to={{}}><body>{body}</body>"
                f"<x xmlns='app:extra' y='1'><z/></x></message>",
            )  # fmt: skip
        await stream.fence()

    async def _ask_in_vain(self, sample: Sequence[str]) -> None:
        """The first of the sample has many requests that wait."""
        for user in self.users[-12:]:
            self._to(user, sample[0], "<presence type='subscribe' to={}><status>please</status></presence>")
        await self._all_done()

    async def _approve(self, user: str) -> None:
        stream = self.streams[user]
        stream.write("<presence type='subscribed' to='early@remote.example'/>")
        await stream.fence()

    async def _look(self, user: str) -> None:
        answer = await self.streams[user].ask("get", f"<query xmlns='{ns.ROSTER}'/>")
        self.filled.rosters[user] = items_in(answer)

    def close(self) -> None:
        """End all streams."""
        for stream in self.streams.values():
            stream.close()


def roster_item(contact: str, number: int, title: str | None = None) -> str:
    """A roster set with one of the names and one of the lots of groups."""
    name = TITLES[number % len(TITLES)] if title is None else title
    groups = "".join(f"<group>{escape(group)}</group>" for group in GROUPS[number % len(GROUPS)])
    shown = f" name={quoteattr(name)}" if name else ""
    return f"<query xmlns='{ns.ROSTER}'><item jid={quoteattr(contact)}{shown}>{groups}</item></query>"


async def together(at_once: int, work: Sequence[Awaitable[None]]) -> None:
    """Do all of it, so many at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(task: Awaitable[None]) -> None:
        async with room:
            await task

    await asyncio.gather(*map(one, work))
