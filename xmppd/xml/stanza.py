"""A stanza as the scanner found it: the attributes of its start tag, and its bytes.

The bytes have passed a strict, namespace-aware parse and are self-contained in the default namespace
`jabber:client`, so that they can be forwarded as they are. The tree is made only for who asks for it.
"""

from __future__ import annotations

import re
from typing import Protocol
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.parsers.expat import ParserCreate

from xmppd import ns

SEPARATOR = "\n"
"""What expat writes between namespace and name, and so the one character that it refuses in a namespace. No
URI has it; clients whose parser is told the same would be cut off by one that did.
"""

LANG = f"{ns.XML}{SEPARATOR}lang"
"""`xml:lang` as a key of `Stanza.attrs`."""

_HEAD = re.compile(rb"<[^\s/>]++(?:\s++[^\s=/>]++\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'))*\s*+")

_NO_PLAIN_TEXT = re.compile(rb"[<&>\r]")


def clark(name: str) -> str:
    """A name as expat writes it, as a Clark name. The last `}` ends the namespace, which may have others."""
    return "{" + name.replace(SEPARATOR, "}") if SEPARATOR in name else name


def unclark(name: str) -> str:
    """A Clark name as expat writes it, which is how it is a key of `Stanza.attrs`."""
    uri, bracket, local = name.rpartition("}")
    return f"{uri[1:]}{SEPARATOR}{local}" if bracket else name


class Maker(Protocol):
    """Who makes a tree with less work than `parse`."""

    def tree(self, raw: bytes) -> Element:
        """That of bytes that the scanner accepted; ParseError, ValueError where it cannot."""


class Stanza:
    """One first-level child of a stream. Nobody changes it after the scanner made it.

    `kind` is "message", "presence" or "iq", or the Clark name of any other element (`{}message` for a message
    in no namespace). `attrs` holds the start tag's attributes (a namespaced one with a
    `SEPARATOR` behind its namespace). `payload` is
    the Clark name of the first child, "" without one (found by the scanner for everything but messages and
    presences). `raw` are the bytes; those of the three kinds start with `<kind`. `is_plain`: nothing in it is
    in another namespace, so nobody has to look for it; False where that is not known.
    """

    __slots__ = ("_tail", "_xml", "attrs", "id", "is_plain", "kind", "payload", "raw", "to", "type")

    def __init__(
        self,
        kind: str,
        attrs: dict[str, str],
        raw: bytes,
        tail: int = 0,
        payload: str = "",
        tree: Element | Maker | None = None,
    ) -> None:
        self.kind = kind
        self.attrs = attrs
        self.raw = raw
        self.payload = payload
        self._tail = tail
        self.type = attrs.get("type")
        self.to = attrs.get("to")
        self.id = attrs.get("id")
        self._xml = tree
        self.is_plain = False

    @property
    def tail(self) -> int:
        """Index in `raw` just behind the start tag's last attribute: `raw[tail:]` starts with `>` or `/>`."""
        if not self._tail:
            head = _HEAD.match(self.raw)
            assert head is not None
            self._tail = head.end()
        return self._tail

    @property
    def xml(self) -> Element:
        """The tree (made at the first call, then kept). Treat it as read-only."""
        tree = self._xml
        if not isinstance(tree, Element):
            tree = self._xml = parse(self.raw) if tree is None else made(tree, self.raw)
        return tree

    @property
    def text(self) -> str:
        """The character data before the first child. Plain text, as it nearly always is, needs no tree."""
        raw = self.raw
        text = raw[self.tail + 1 : raw.rfind(b"</")]
        return self.xml.text or "" if _NO_PLAIN_TEXT.search(text) else text.decode()

    def __repr__(self) -> str:
        return f"<Stanza {self.kind} type={self.type} id={self.id}>"


def read(raw: bytes) -> Stanza:
    """A stanza from bytes that the scanner accepted as one, or the server made."""
    head = Stanza("", {}, raw).tail
    tree = parse(raw[:head] + b"/>")
    attrs = {unclark(key): value for key, value in tree.items()}
    return Stanza(tree.tag.rpartition("}")[2], attrs, raw, head)


_OPEN = f"<x xmlns='{ns.CLIENT}'>".encode()


def made(maker: Maker, raw: bytes) -> Element:
    """The tree of such bytes by this one, or by a parser of its own."""
    try:
        return maker.tree(raw)
    except (ParseError, ValueError):
        return parse(raw)


def parse(raw: bytes) -> Element:
    """The tree of bytes that the scanner accepted (never of bytes from anywhere else)."""
    return parse_within(_OPEN, raw, b"</x>")


def parse_within(opening: bytes, raw: bytes, closing: bytes) -> Element:
    """The tree of well-formed bytes that stand between these tags."""
    return parse_around(opening, raw, closing)[0]


def parse_around(opening: bytes, raw: bytes, closing: bytes) -> Element:
    """The same with the element around it, whatever that holds."""
    parser = XMLParser()
    try:
        for piece in (opening, raw, closing):
            parser.feed(piece)
        tree: Element = parser.close()
    except ParseError:  # its own separator is `}`, and a namespace with it is not well-formed to it
        tree = _parse_any(opening + raw + closing)
    return tree


def _parse_any(data: bytes) -> Element:
    """A tree whose namespaces may have any character, made more slowly."""
    builder = TreeBuilder()
    parser = ParserCreate("utf-8", SEPARATOR)
    parser.buffer_text = True

    def start(name: str, attrs: dict[str, str]) -> None:
        builder.start(clark(name), {clark(key): value for key, value in attrs.items()})

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: builder.end(clark(name))
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    tree: Element = builder.close()
    return tree
