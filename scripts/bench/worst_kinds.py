"""The worst input of each kind that one client can send; a row for each, used by `worst.py`."""

import base64
import string
from collections.abc import Callable
from dataclasses import dataclass

MOST = 262_000
NAMES = [*string.ascii_letters, *(letter + "1" for letter in string.ascii_letters)]
CONTACTS = 1000
"""On the roster of user1; the contacts of user2 to user201 are online."""
CJK = "".join(chr(0x4E00 + number) for number in range(341))
MARKS = "a" + "\u0301\u0316" * 255
DIGITS = "\u0627" + "\u0663" * 510
LABELS = ".".join(chr(0x4E00 + number) for number in range(255))


@dataclass(frozen=True, slots=True)
class Kind:
    """`input` makes the n-th of its stanzas. `prepare` is sent once before them; with `before_login` each
    goes out on a new connection behind a header, and with `leaves` the stream is closed after `input`, and it
    is the end that counts.
    """

    name: str
    input: Callable[[int], bytes]
    user: str = "user2"
    prepare: bytes = b""
    before_login: bool = False
    leaves: bool = False


def filled(head: str, piece: str, tail: str, most: int = MOST, count: int = 10**9) -> bytes:
    """As many pieces as there is place for."""
    start, middle, end = head.encode(), piece.encode(), tail.encode()
    return start + middle * min(count, (most - len(start) - len(end)) // len(middle)) + end


def attributes(count: int, prefix: str = "") -> str:
    """Short attributes of different names."""
    return "".join(f" {prefix}{name}=''" for name in NAMES[:count])


def message(piece: str, to: str = "user3@localhost", **bounds: int) -> bytes:
    """A message made of one piece, for somebody who is there."""
    return filled(f"<message to='{to}'><body>", piece, "</body></message>", **bounds)


def pieces(kind: str, head: str, tail: str, count: int, prefix: str = "", lines: int = 0) -> bytes:
    """As many different elements with an attribute each."""
    inner = "".join(f'<e{n} {prefix}a{n}="v">' + "\n" * lines + f"</e{n}>" for n in range(count))
    return f"<{kind}>{head}{inner}{tail}</{kind.split(maxsplit=1)[0]}>".encode()


def always(data: bytes | str) -> Callable[[int], bytes]:
    """The same each time."""
    whole = data.encode() if isinstance(data, str) else data
    return lambda _: whole


def iq(kind: str, payload: str, to: str = "") -> Callable[[int], bytes]:
    """An iq with an id of its own."""
    address = f" to='{to}'" if to else ""
    return lambda n: f"<iq type='{kind}' id='w{n}'{address}>{payload}</iq>".encode()


def auth(name: str, mechanism: str = "PLAIN") -> Callable[[int], bytes]:
    """An attempt to log in with this name."""
    data = f"\0{name}\0secret" if mechanism == "PLAIN" else f"n,,n={name},r=abcdefgh"
    text = base64.b64encode(data.encode()).decode()
    return always(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{text}</auth>")


def each(template: str, texts: list[str]) -> bytes:
    """A template once for each text."""
    return "".join(template.format(text) for text in texts).encode()


LONG = [f"{'é' * 480}{n}@localhost/{'中' * 330}{n}" for n in range(1000)]
ROSTER = "<query xmlns='jabber:iq:roster'>{}</query>"
VCARD = "<vCard xmlns='vcard-temp'>{}</vCard>"
PRIVATE = "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>{}</x></query>"
ELEMENTS = "<a/>" * 2044

XML = [
    Kind("text of 256 KiB", always(message("hello world "))),
    Kind("line ends", always(message("\n", count=46_000))),
    Kind("line ends, too many", always(message("\n"))),
    Kind("references", always(message("&lt;", count=46_000))),
    Kind("long attributes", always(message(f"<a b='{'x' * 65_000}'/>"))),
    Kind("long attribute, too long", always(filled("<message to='user3@localhost' a='", "x", "'/>"))),
    Kind("CDATA", always(message("<![CDATA[<]]>x", count=2000))),
    Kind("elements", always(message("<a/>", count=2040))),
    Kind("elements and attributes", always(pieces("message to='user3@localhost'", "", "", 1500))),
    Kind(
        "elements, attributes, lines", always(pieces("message to='user3@localhost'", "", "", 950, lines=16))
    ),
    Kind("prefix of a child", always(pieces("message", f"<x xmlns:p='{'u' * 80}'>", "</x>", 1500, "p:"))),
    Kind("prefix of the stanza", always(pieces("message xmlns:p='urn:p' p:a=''", "", "", 480, "p:"))),
    Kind("brace in a namespace", always(pieces("message to='user3@localhost'", "", "<x xmlns='}'/>", 480))),
    Kind(
        "60 prefixed attributes",
        always(filled("<message xmlns:p='urn:p'>", f"<a{attributes(60, 'p:')}/>", "</message>")),
    ),
    Kind("depth", always(message("<a>" * 60 + "</a>" * 60, count=17))),
    Kind("small stanzas in a read", always(b"<iq type='get'/>" * 500)),
]

ADDRESSES = [
    Kind("to a long address", lambda n: f"<message to='{LONG[n % 1000]}'/>".encode()),
    Kind("to digits", lambda n: f"<message to='{DIGITS}@localhost/{n}'/>".encode()),
    Kind("to marks", lambda n: f"<message to='{MARKS}@localhost/{n}'/>".encode()),
    Kind("to many labels", lambda n: f"<message to='a@{LABELS}/{n}'/>".encode()),
    Kind("to what is no address", lambda n: f"<message to='{DIGITS}{chr(0x200B)}@localhost/{n}'/>".encode()),
    Kind("PLAIN, digits", auth(DIGITS), before_login=True),
    Kind("PLAIN, 7 KB", auth("é" * 3500), before_login=True),
    Kind("SCRAM, digits", auth(DIGITS, "SCRAM-SHA-256"), before_login=True),
    Kind("SCRAM, marks", auth(MARKS, "SCRAM-SHA-256"), before_login=True),
]

REQUESTS = [
    Kind("roster get, 1000 contacts", iq("get", ROSTER.format("")), "user1"),
    Kind(
        "roster set, 1000 contacts",
        lambda n: iq("set", ROSTER.format(f"<item jid='friend{n % 999}-of-user1@localhost' name='n{n}'/>"))(
            n
        ),
        "user1",
    ),
    Kind(
        "roster set, many groups",
        iq("set", ROSTER.format("<item jid='a@b'>" + "<group>g</group>" * 2000 + "</item>")),
    ),
    Kind("vCard set", iq("set", VCARD.format("<NOTE>" + "x" * 100_000 + "</NOTE>"))),
    Kind("vCard set, elements", iq("set", VCARD.format(ELEMENTS))),
    Kind("vCard get", iq("get", VCARD.format("")), prepare=iq("set", VCARD.format(ELEMENTS))(0)),
    Kind("private set, elements", iq("set", PRIVATE.format(ELEMENTS))),
    Kind("private get", iq("get", PRIVATE.format("")), prepare=iq("set", PRIVATE.format(ELEMENTS))(0)),
    Kind(
        "disco of the server",
        iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "localhost"),
    ),
    Kind("last of a stranger", iq("get", "<query xmlns='jabber:iq:last'/>", "user9@localhost")),
    Kind("iq that nobody knows", iq("set", f"<x xmlns='urn:x'>{ELEMENTS}</x>")),
]

PRESENCE = [
    Kind("presence, 1000 contacts", lambda n: f"<presence><status>{n}</status></presence>".encode(), "user1"),
    Kind("presence, 200 online", lambda n: f"<presence><status>{n}</status></presence>".encode()),
    Kind(
        "presence of 64 KB, 200 online", always("<presence><status>" + "x" * 64_000 + "</status></presence>")
    ),
    Kind("presence, elements", always(f"<presence>{ELEMENTS}</presence>")),
    Kind("probes", lambda n: f"<presence type='probe' to='user{3 + n % 190}@localhost'/>".encode() * 100),
    Kind(
        "subscribe, elements",
        lambda n: f"<presence type='subscribe' to='s{n}@localhost'>{ELEMENTS}</presence>".encode(),
    ),
    Kind("directed presence, long", lambda n: f"<presence to='{LONG[n % 1000]}'/>".encode()),
    Kind("login, 1000 contacts", always(b"<presence/>"), "user1"),
    Kind("logout, 1000 directed", always(each("<presence to='{}'/>", LONG)), leaves=True),
    Kind("offline, 100 messages", lambda n: message("x", f"friend@localhost{n}", count=9) * 100),
]

KINDS = [*XML, *ADDRESSES, *REQUESTS, *PRESENCE]
