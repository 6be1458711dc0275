"""Finding the end of one element whose bytes come in any pieces, without looking at a byte twice.

This is the careful way, for elements that are not complete yet or not simple. It knows tags, quotes and CDATA
sections, and nothing of characters, entities or namespaces: what it frames still has to pass a strict parse.
"""

from __future__ import annotations

import re

from xmppd.errors import StreamError
from xmppd.xml.limits import Limits

SPACE = rb"[ \t\r\n]"
NAME = rb"[A-Za-z_:\x80-\xff][\w:.\x80-\xff-]*+"
ATTRIBUTES = rb"(?:%b++%b%b*+=%b*+(?:\"[^\"<]*+\"|'[^'<]*+'))*" % (SPACE, NAME, SPACE, SPACE)
START = rb"<(%b)(%b)%b*+(/?)>" % (NAME, ATTRIBUTES, SPACE)

_TAG = re.compile(rb"%b|</(%b)%b*+>" % (START, NAME, SPACE))
_ATTRIBUTE = re.compile(rb"(%b)%b*+=%b*+(?:\"([^\"]*+)\"|'([^']*+)')" % (NAME, SPACE, SPACE))
_PLAIN_TAG = re.compile(rb"<(?:([A-Za-z_][\w.-]*+)(/?)|/([A-Za-z_][\w.-]*+))>[^<]*+")
CDATA = b"<![CDATA["
CDATA_END = b"]]>"

COSTLY = 4
"""How much more a piece costs in an element that is rewritten, or that takes our own parser of trees."""

_IN_TAG = re.compile(rb"[<>\"']")
_IN_DOUBLE_QUOTES = re.compile(rb'[<"]')
_IN_SINGLE_QUOTES = re.compile(rb"[<']")
_IN_CDATA = re.compile(rb"\]\]>")


def check_attributes(attributes: bytes, limits: Limits) -> tuple[int, int, int]:
    """How many attributes and declarations these are, how many bytes their names have, and the longest
    namespace with a prefix. StreamError for too many, or too long a name.
    """
    plain = declared = names = longest = 0
    for name, double, single in _ATTRIBUTE.findall(attributes):
        size = len(name)
        names += size
        if name == b"xmlns" or name.startswith(b"xmlns:"):
            declared += 1
            size = len(double or single)
            if name != b"xmlns":
                longest = max(longest, size)
        else:
            plain += 1
        if size > limits.name_bytes:
            raise StreamError("policy-violation", "name too long")
    if plain > limits.attributes or declared > limits.namespaces:
        raise StreamError("policy-violation", "too many attributes")
    return plain + declared, names, longest


class Frame:
    """How far one element was looked through.

    `start` is its index in the buffer. `is_prefixed` says that its start tag has a prefix, or declares one
    that its children may need, `is_odd` that a namespace has characters that cost. `stream` is the name of
    the stream's own tag, which must not come again (RFC 6120 4.3.3), `longest` the size of the longest
    namespace that the stream has a prefix for.
    """

    __slots__ = (
        "_attributes",
        "_elements",
        "_longest",
        "_markup",
        "_names",
        "_seek",
        "_stream",
        "_tag",
        "_values",
        "_within",
        "is_odd",
        "is_prefixed",
        "start",
    )

    def __init__(self, start: int, stream: bytes, longest: int = 0) -> None:
        self.start = start
        self._stream = stream
        self.is_prefixed = False
        self.is_odd = False
        self._names: list[bytes] = []
        self._elements = 0
        self._attributes = 0
        self._markup = 0
        self._longest = longest
        self._tag = start
        self._values = 0
        self._seek = start
        self._within: re.Pattern[bytes] | None = None

    def rebase(self) -> None:
        """The buffer was cut so that the element is at its start."""
        self._tag -= self.start
        self._seek -= self.start
        self.start = 0

    def advance(self, buffer: bytes | bytearray, limits: Limits) -> int:
        """Index behind the element's end, or 0 when it is not there yet.

        Bytes may be added to the end of `buffer` between calls. A StreamError comes as soon as it is certain.
        """
        end = 0
        while not end and self._seek < len(buffer):
            end = self._look_on(buffer, limits) if self._within else self._look_in_text(buffer, limits)
            if end < 0:
                end = 0
                break
        if (end or len(buffer)) - self.start > limits.stanza_bytes:
            raise StreamError("policy-violation", "stanza too big")
        is_in_tag = self._within is not None and self._within is not _IN_CDATA
        if is_in_tag and len(buffer) - self._tag > limits.tag_bytes:
            raise StreamError("policy-violation", "tag too long")
        return end

    def _look_in_text(self, buffer: bytes | bytearray, limits: Limits) -> int:
        """Go to the next tag and take it if it is complete; -1: more bytes are needed."""
        at = buffer.find(b"<", self._seek)
        if at < 0:
            self._seek = len(buffer)
            return -1
        self._tag = self._seek = at
        if self._names and self._skim(buffer, limits):
            return 0
        tag = _TAG.match(buffer, at)
        if tag:
            return self._take(tag, limits)
        begun = bytes(buffer[at : at + len(CDATA)])
        if begun == CDATA:
            self._within = _IN_CDATA
            self._seek = at + len(CDATA)
            self._attributes += COSTLY - 1
            self._count(limits)
            return 0
        if len(begun) == 1 or CDATA.startswith(begun):
            return -1
        if begun[1] in b"!?":
            raise StreamError("restricted-xml", "no comments, processing instructions or DTDs")
        self._within = _IN_TAG
        self._values = 0
        self._seek = at + 1
        return 0

    def _skim(self, buffer: bytes | bytearray, limits: Limits) -> bool:
        """Take the tags without attributes that follow each other here, with the text behind them, up to one
        that ends the element or exceeds a bound: that is for `_take`. Whether there were any.
        """
        match, names = _PLAIN_TAG.match, self._names
        pieces, depth, longest_name = self._elements + self._attributes, limits.depth, limits.name_bytes
        left = min(limits.elements - self._elements, limits.pieces - pieces)
        if self._longest:
            left = min(left, limits.expanded_bytes // self._longest - pieces)
        room, markup, seek = left, 0, self._seek
        while (tag := match(buffer, seek)) is not None:
            name, empty, ended = tag.groups()
            if ended is not None:
                if len(names) == 1 or names[-1] != ended:
                    break
                names.pop()
            elif left <= 0 or len(names) >= depth or len(name) > longest_name:
                break
            else:
                left -= 1
                markup += len(name)
                if not empty:
                    names.append(name)
            seek = tag.end()
        is_on = seek > self._seek
        self._elements += room - left
        self._markup += markup
        self._seek = seek
        self._check(limits)
        return is_on

    def _look_on(self, buffer: bytes | bytearray, limits: Limits) -> int:
        """Look for what ends the tag, quotes or CDATA section we are in; -1: more bytes are needed."""
        within = self._within
        assert within is not None
        found = within.search(buffer, self._seek)
        if found is None:
            self._seek = len(buffer) if within is not _IN_CDATA else max(self._seek, len(buffer) - 2)
            return -1
        self._seek = found.end()
        match found[0]:
            case b"]]>":
                self._within = None
            case b"<":
                raise StreamError("not-well-formed")
            case b">":
                self._within = None
                tag = _TAG.match(buffer, self._tag)
                if tag is None:
                    raise StreamError("not-well-formed")
                return self._take(tag, limits)
            case quote if within is _IN_TAG:
                self._values += 1
                if self._values > limits.attributes + limits.namespaces:
                    raise StreamError("policy-violation", "too many attributes")
                self._within = _IN_SINGLE_QUOTES if quote == b"'" else _IN_DOUBLE_QUOTES
            case _:
                self._within = _IN_TAG
        return 0

    def _take(self, tag: re.Match[bytes], limits: Limits) -> int:
        """Count a complete tag in; the index behind it when it ends the element, otherwise 0."""
        names = self._names
        name, attributes, empty, ended = tag.groups()
        if ended is not None:
            if not names or names.pop() != ended:
                raise StreamError("not-well-formed")
        else:
            if (
                len(names) >= limits.depth
                or len(name) > limits.name_bytes
                or tag.end() - tag.start() > limits.tag_bytes
            ):
                raise StreamError("policy-violation", "too deep, or a name or tag too long")
            self._markup += len(name)
            if attributes:
                self._take_attributes(attributes, limits)
            self._count(limits)
            if self._elements == 1:
                if name == self._stream:
                    raise StreamError("unsupported-stanza-type", "a stream in the stream")
                self.is_prefixed = name.find(b":") >= 0 or attributes.find(b"xmlns:") >= 0
            if not empty:
                names.append(name)
        self._seek = tag.end()
        return 0 if names else self._seek

    def _take_attributes(self, attributes: bytes, limits: Limits) -> None:
        size = len(attributes)
        if size > limits.harmless_bytes or attributes.find(b"xmlns:") >= 0:
            count, size, longest = check_attributes(attributes, limits)
            self._longest = max(self._longest, longest)
        else:
            count = attributes.count(b"=")
        if attributes.find(b"xmlns") >= 0 and (attributes.find(b"}") >= 0 or attributes.find(b"&") >= 0):
            self.is_odd = True
        self._attributes += count
        self._markup += size

    def _count(self, limits: Limits) -> None:
        """One more element or CDATA section; StreamError when the whole would cost too much."""
        self._elements += 1
        self._check(limits)

    def _check(self, limits: Limits) -> None:
        pieces = self._elements + self._attributes
        if (
            self._elements > limits.elements
            or pieces > limits.pieces
            or self._markup > limits.markup_bytes
            or pieces * self._longest > limits.expanded_bytes
        ):
            raise StreamError("policy-violation", "too many elements or attributes, or names too long")

    def check(self, raw: bytes, limits: Limits, *, is_rewritten: bool) -> None:
        """StreamError when the element, which is `raw`, would cost too much as a whole."""
        pieces = self._elements + self._attributes + limits.pieces_of_text(raw)
        if pieces * (COSTLY if is_rewritten or self.is_odd else 1) > limits.pieces:
            raise StreamError("policy-violation", "too many elements, attributes, references and lines")
