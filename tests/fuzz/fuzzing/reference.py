"""The second opinion on XML: plain expat, one parser for each stream, and trees in comparable form.

A tree is `(Clark name, sorted attributes, content)`; content are texts and trees.
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from tokens import Tokens

Tree = tuple[str, tuple[tuple[str, str], ...], tuple[Any, ...]]

CLIENT = "jabber:client"
STREAM = "http://etherx.jabber.org/streams"
OPEN = f"<stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAM}'>".encode()
CLOSE = b"</stream:stream>"
MARK = "\x01"


def received(data: bytes) -> tuple[list[Tree], bool]:
    """What the server wrote in one go behind its header, and whether it closed the stream with it.

    ValueError unless these are whole elements.
    """
    reader = Input()
    reader.feed(data)
    is_whole, ended = not reader.broken and not reader.open, reader.ended
    reader.close()
    if not is_whole:
        raise ValueError(data)
    return [tree for tree, _ in reader.trees], ended


def children(tree: Tree) -> list[Tree]:
    """The elements in a tree."""
    return [part for part in tree[2] if not isinstance(part, str)]


def text_of(tree: Tree) -> str:
    """The text in front of the first child."""
    return tree[2][0] if tree[2] and isinstance(tree[2][0], str) else ""


def clark(name: str) -> str:
    """A name as the parser writes it, which puts `MARK` behind the namespace."""
    uri, mark, local = name.rpartition(MARK)
    return f"{{{uri}}}{local}" if mark else name


class Forbidden(Exception):
    """Well-formed XML that has no place in a stream (RFC 6120 11.1)."""


class Input:
    """One stream as its client sends it. `broken` once it cannot go on, `ended` by its end tag."""

    def __init__(self) -> None:
        self.trees: list[tuple[Tree, bool]] = []
        """Whole stanzas, each with whether it is so close to a bound that it may be refused."""
        self.broken = False
        self.ended = False
        self.excess = False
        """Whether what has begun has to be refused without waiting for its end."""
        self.stanza_bytes = 0
        self._path: list[tuple[str, tuple[tuple[str, str], ...], list[Any]]] = []
        self._near = False
        self._elements = 0
        self._start = 0
        self._declared = 0
        self._chunk = b""
        self._tokens = Tokens()
        self._parser = parser = expat.ParserCreate("utf-8", MARK)
        parser.Parse(OPEN, False)
        self._received = self._given = len(OPEN)
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.CommentHandler = parser.ProcessingInstructionHandler = self._forbid
        parser.StartDoctypeDeclHandler = self._forbid
        parser.StartCdataSectionHandler = self._cdata
        parser.StartNamespaceDeclHandler = self._declare

    @property
    def open(self) -> bool:
        """Whether an element is not complete."""
        return bool(self._path) or self._tokens.held != b""

    @property
    def near(self) -> bool:
        """Whether what is open is close to a bound."""
        return self._near or (bool(self._path) and self._received - self._start > 0.8 * self.stanza_bytes)

    def feed(self, data: bytes) -> None:
        """Take bytes; what they complete is added to `trees`."""
        if self.broken or self.ended:
            return
        self._received += len(data)
        self._chunk = data = self._tokens.whole(data)
        self._given += len(data)
        try:
            self._parser.Parse(data, False)
        except (Forbidden, expat.ExpatError):
            self.broken = True
        if self._path and self._received - self._start > 2 * self.stanza_bytes:
            self.excess = True

    def close(self) -> None:
        """Let go of the parser, which refers to us."""
        parser = self._parser
        parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
        parser.CommentHandler = parser.ProcessingInstructionHandler = parser.StartDoctypeDeclHandler = None
        parser.StartCdataSectionHandler = parser.StartNamespaceDeclHandler = None
        self.broken = True

    def _forbid(self, *_: object) -> None:
        raise Forbidden

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        self._declared += 1
        if len(uri or "") > 300:
            self._near = True

    def _cdata(self) -> None:
        if not self._path:
            raise Forbidden

    def _begin(self, name: str, attrs: dict[str, str]) -> None:
        if not self._path:
            self._start = self._parser.CurrentByteIndex
            self._elements = 0
            self.excess = self.excess or name == f"{STREAM}{MARK}stream"  # a stream in the stream
        self._elements += 1
        declared, self._declared = self._declared, 0
        most = max(len(attrs) / 64, len(self._path) / 64, self._elements / 2048, declared / 32)
        if most > 0.9 or len(name) > 300:
            self._near = True
        if most > 1.5:
            self.excess = True
        items = sorted((clark(key), value) for key, value in attrs.items())
        self._path.append((clark(name), tuple(items), []))

    def _end(self, _: str) -> None:
        if not self._path:
            self.ended = True
            return
        name, attrs, content = self._path.pop()
        done = name, attrs, tuple(content)
        if self._path:
            self._path[-1][2].append(done)
            return
        size = self._parser.CurrentByteIndex - self._start
        self.trees.append((done, self._near or size > 0.8 * self.stanza_bytes))
        self._near = False

    def _text(self, data: str) -> None:
        if self._path:
            content = self._path[-1][2]
            if content and isinstance(content[-1], str):
                content[-1] += data
            else:
                content.append(data)
        elif data.strip(" \t\r\n") or self._written() not in b" \t\r\n":
            raise Forbidden  # a reference to white space is no white space

    def _written(self) -> bytes:
        """The byte that the parser is at."""
        at = self._parser.CurrentByteIndex - (self._given - len(self._chunk))
        return self._chunk[at : at + 1]
