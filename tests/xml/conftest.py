"""A reference to judge the scanner by: one expat parser that reads a whole stream, and trees in comparable
form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element
from xml.parsers import expat

import pytest

from xmppd.errors import StreamError
from xmppd.xml.scan import Engine, Event, Limits, Scanner, StreamClose, StreamOpen
from xmppd.xml.stanza import Stanza

STREAM = "http://etherx.jabber.org/streams"
HEADER = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:header' to='localhost' version='1.0'>"
)

Tree = tuple[Any, ...]


def canonical(tree: Element) -> Tree:
    """Name, attributes and content of a tree: equal for trees that mean the same."""
    content: list[Any] = [tree.text] if tree.text else []
    for child in tree:
        content.append(canonical(child))
        if child.tail:
            content.append(child.tail)
    return (tree.tag, tuple(sorted(tree.items())), tuple(content))


@dataclass
class Scanned:
    """All that a scanner said about some input."""

    events: list[Event]
    pending: int

    @property
    def error(self) -> str | None:
        """The condition of the stream error, if there is one."""
        last = self.events[-1] if self.events else None
        return last.condition if isinstance(last, StreamError) else None

    @property
    def opening(self) -> StreamOpen | None:
        return next((event for event in self.events if isinstance(event, StreamOpen)), None)

    @property
    def stanzas(self) -> list[Stanza]:
        return [event for event in self.events if isinstance(event, Stanza)]

    @property
    def trees(self) -> list[Tree]:
        return [canonical(stanza.xml) for stanza in self.stanzas]

    @property
    def is_closed(self) -> bool:
        return any(isinstance(event, StreamClose) for event in self.events)

    @property
    def said(self) -> list[Any]:
        """The events in comparable form."""
        return [
            (e.kind, e.attrs, e.payload, e.raw)
            if isinstance(e, Stanza)
            else e.condition
            if isinstance(e, StreamError)
            else e
            for e in self.events
        ]


def scan_all(
    chunks: bytes | Iterable[bytes],
    *,
    limits: Limits = Limits(),
    engine: Engine | None = None,
    stepwise: bool = False,
) -> Scanned:
    """Feed a new scanner."""
    scanner = Scanner(engine or Engine(), limits)
    scanner.stepwise = stepwise
    events: list[Event] = []
    for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
        new = scanner.feed(chunk)
        while new:
            events += new
            new = scanner.feed(b"") if stepwise else []
    return Scanned(events, scanner.pending)


@dataclass
class Reference:
    """What one expat parser says of a whole stream. `error`: malformed, or one of the things that RFC 6120
    11.1 forbids.
    """

    trees: list[Tree] = field(default_factory=list)
    error: str | None = None
    is_closed: bool = False
    is_incomplete: bool = False


INCOMPLETE = [
    expat.errors.codes[text]
    for text in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
]
"""What expat says at the end of input that could have gone on."""


def clark(name: str) -> str:
    """A name as the parser writes it, which puts U+0001 behind the namespace."""
    uri, mark, local = name.rpartition("\x01")
    return f"{{{uri}}}{local}" if mark else name


class Forbidden(Exception):
    """Well-formed XML that has no place in a stream."""


class ReferenceParser:
    """Reads one stream from beginning to end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.result = Reference()
        self.path: list[Element] = []
        self.parser = parser = expat.ParserCreate("utf-8", "\x01")
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.text
        parser.CommentHandler = parser.ProcessingInstructionHandler = parser.StartDoctypeDeclHandler = (
            self.forbid
        )
        parser.StartCdataSectionHandler = self.cdata

    def run(self) -> Reference:
        try:
            self.parser.Parse(self.data, False)
            self.parser.Parse(b"", True)
        except Forbidden:
            self.result.error = "forbidden"
        except expat.ExpatError as error:
            if not self.result.is_closed:
                self.result.is_incomplete = error.code in INCOMPLETE
                self.result.error = None if self.result.is_incomplete else str(error)
        return self.result

    def forbid(self, *_: object) -> None:
        if not self.result.is_closed:
            raise Forbidden

    def cdata(self) -> None:
        if len(self.path) == 1:
            raise Forbidden

    def start(self, name: str, attrs: dict[str, str]) -> None:
        element = Element(clark(name), {clark(key): value for key, value in attrs.items()})
        if self.path:
            self.path[-1].append(element)
        self.path.append(element)

    def end(self, _: str) -> None:
        done = self.path.pop()
        if not self.path:
            self.result.is_closed = True
        elif len(self.path) == 1:
            self.result.trees.append(canonical(done))
            self.path[0].clear()

    def text(self, data: str) -> None:
        if len(self.path) == 1:
            if data.strip(" \t\r\n") or self.data[self.parser.CurrentByteIndex] not in b" \t\r\n":
                raise Forbidden  # a reference to a character, even to white space, is no white space either
        elif len(self.path[-1]):
            last = self.path[-1][-1]
            last.tail = (last.tail or "") + data
        else:
            self.path[-1].text = (self.path[-1].text or "") + data


@pytest.fixture(scope="session")
def header() -> bytes:
    """A stream header that declares a prefix more than usual."""
    return HEADER


@pytest.fixture(scope="session")
def scan() -> Callable[..., Scanned]:
    return scan_all


@pytest.fixture(scope="session")
def reference() -> Callable[[bytes], Reference]:
    return lambda data: ReferenceParser(data).run()


@pytest.fixture(scope="session")
def tree_of() -> Callable[[Element], Tree]:
    return canonical
