"""Bytes to stanzas: the strict, bounded, incremental reader of one XML stream (RFC 6120 4 and 11).

Nearly every stanza arrives whole and is simple: it is cut out by `bytes.find` and checked by the engine's
shared parser. Whatever is not whole or not simple is framed tag by tag and parsed on its own. Both ways end
in the same `Stanza`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from xmppd import ns
from xmppd.errors import StreamError
from xmppd.xml.build import start_tag
from xmppd.xml.engine import Engine, canonical, parse_framed, without_sections
from xmppd.xml.framing import CDATA, Frame
from xmppd.xml.header import Context, StreamOpen, read_header
from xmppd.xml.limits import Limits
from xmppd.xml.stanza import Stanza

__all__ = ["Engine", "Event", "Limits", "Scanner", "StreamClose", "StreamOpen", "read_stanza"]


@dataclass(frozen=True, slots=True)
class StreamClose:
    """The end tag of the stream."""


Event = StreamOpen | Stanza | StreamClose | StreamError

_WHITE: Final = b" \t\r\n"
_SKIP_WHITE = re.compile(rb"[ \t\r\n]*+")
_LESS: Final = ord("<")
_SLASH: Final = ord("/")
_BANG: Final = ord("!")
_QUESTION: Final = ord("?")
_SIMPLE_TAG = re.compile(rb"(<[A-Za-z_][\w.-]*+)(?:[ \t\r\n/][^>]*+)?>")
_CLOSING = {b"<" + name: b"</" + name + b">" for name in (b"message", b"presence", b"iq")}

_PROOF = re.compile(
    rb"<(auth|response) xmlns=(['\"])(%b|%b)\2(?: mechanism=(['\"])([A-Z0-9-]++)\4)?>([A-Za-z0-9+/=]*+)</\1>"
    % (re.escape(ns.SASL.encode()), re.escape(ns.SASL2.encode()))
)
"""What proves who a client is, as it is nearly always written. So much is said by this that no parser has to
look at it: no other name, no reference, one value of each attribute, and text that stands for itself.
"""

_WITH_TREE: Final = b"<authenticate"
"""What begins an element whose children are looked at in any case (XEP-0388)."""

_KINDS: Final = ("message", "presence", "iq")
_HEADER: Final = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' version='1.0'>".encode()
_DECLARED = re.compile(rb"[ \t\r\n]xmlns[ \t\r\n]*+=")
_FILED: Final = Limits(stanza_bytes=1 << 21)
"""What was kept in a file may be larger than what a client sends: it has got more attributes since."""


class Scanner:
    """The reader of one stream.

    `limits` may be replaced at any time. While `stepwise` is true (it is at first) each call of `feed`
    returns at most one event, so that its consequences come before the bytes behind it; `feed(b"")` goes on.
    """

    __slots__ = ("_buffer", "_context", "_engine", "_frame", "_is_over", "limits", "stepwise")

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.limits = limits
        self.stepwise = True
        self._engine = engine
        self._buffer: bytes | bytearray = b""
        self._context: Context | None = None
        self._frame: Frame | None = None
        self._is_over = False

    @property
    def pending(self) -> int:
        """Number of bytes taken that are not part of any event yet."""
        return len(self._buffer)

    def restart(self, *, discard: bool = False) -> None:
        """Expect a new stream header, in the pending bytes or, with `discard`, only in those to come."""
        self._buffer = b"" if discard else bytes(self._buffer)
        self._context = None
        self._frame = None
        self._is_over = False

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order. A StreamError is the last element, and the end of reading."""
        events: list[Event] = []
        if self._is_over or (not data and not self._buffer):
            return events
        try:
            if self._frame is not None:
                data = self._continue(self._frame, data, events)
            elif self._buffer:
                data = bytes(self._buffer) + data
            self._scan(data, events)
        except StreamError as error:
            events.append(error)
            self._is_over = True
        if self._is_over:
            self._buffer = b""
            self._frame = None
        return events

    def _scan(self, data: bytes, events: list[Event]) -> None:
        pos = 0
        size = len(data)
        while pos < size and not (events and (self.stepwise or self._is_over)):
            if data[pos] in _WHITE:
                white = _SKIP_WHITE.match(data, pos)
                pos = white.end() if white else pos
                continue
            context = self._context
            if context is None:
                end = self._header(data, pos, events)
            else:
                stanza = self._simple(data, pos) if context.is_usual else None
                if stanza is not None:
                    events.append(stanza)
                    pos += len(stanza.raw)
                    continue
                end = self._child(context, data, pos, events)
            if not end:
                break
            pos = end
        if self._frame is None:
            self._buffer = data[pos:]

    def _simple(self, data: bytes, pos: int) -> Stanza | None:
        """The stanza at `pos` when it is whole and simple; None says nothing about it."""
        if self.stepwise and (proof := _PROOF.match(data, pos)) is not None:
            return self._proof(proof)
        tag = _SIMPLE_TAG.match(data, pos)
        if tag is None:
            return None
        opening = tag[1]
        end = tag.end()
        if data[end - 2] != _SLASH:
            closing = _CLOSING.get(opening) or b"</" + opening[1:] + b">"
            found = data.find(closing, end)
            if found < 0:
                return None
            end = found + len(closing)
        raw = data[pos:end]
        names = raw.find(b"xmlns")
        if (
            raw.find(opening, 1) > 0
            or (names > 0 and raw.find(b"xmlns:", names) > 0)
            or (_BANG in raw and raw.find(b"<!") > 0)  # a single byte is found far faster than two
            or (_QUESTION in raw and raw.find(b"<?") > 0)
        ):
            return None
        limits = self.limits
        if end - pos > limits.simple_bytes and not limits.allow(raw):
            return None
        if self.stepwise and opening == _WITH_TREE:
            return self._engine.element(raw)
        stanza = self._engine.stanza(raw)
        if stanza is not None and names < 0:
            stanza.is_plain = True
        return stanza

    def _proof(self, found: re.Match[bytes]) -> Stanza | None:
        raw, name, uri, mechanism = found.group(0, 1, 3, 5)
        if len(raw) > self.limits.simple_bytes:
            return None
        kind = f"{{{uri.decode()}}}{name.decode()}"
        tail = found.start(6) - found.start() - 1
        return Stanza(kind, {"mechanism": mechanism.decode()} if mechanism else {}, raw, tail)

    def _header(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read the stream header at `pos`; the index behind it, 0 when it is not complete."""
        header = read_header(data, pos, self.limits)
        if header is None:
            return 0
        self._context = header.context
        events.append(header.event)
        if header.is_empty:
            events.append(StreamClose())
            self._is_over = True
        return header.end

    def _child(self, context: Context, data: bytes, pos: int, events: list[Event]) -> int:
        """Read what is at `pos` of an open stream with care; the index behind it, 0 when it is not
        complete.
        """
        if data[pos] != _LESS:
            raise StreamError("bad-format", "text between stanzas")
        match data[pos + 1 : pos + 2]:
            case b"":
                return 0
            case b"!" | b"?":
                raise StreamError("restricted-xml", "no comments, processing instructions or DTDs")
            case b"/":
                return self._close(context, data, pos, events)
        frame = Frame(pos, context.name, context.longest)
        end = frame.advance(data, self.limits)
        if end:
            events.append(self._strict(frame, context, data[pos:end]))
        else:
            self._buffer = bytearray(data[pos:])
            self._frame = frame
            frame.rebase()
        return end

    def _continue(self, frame: Frame, data: bytes, events: list[Event]) -> bytes:
        """Add bytes to the element that is being framed; those behind its end."""
        context = self._context
        assert context is not None
        self._buffer += data
        end = frame.advance(self._buffer, self.limits)
        if not end:
            return b""
        data = bytes(self._buffer)
        self._frame = None
        events.append(self._strict(frame, context, data[:end]))
        return data[end:]

    def _strict(self, frame: Frame, context: Context, raw: bytes) -> Stanza:
        """The stanza in framed bytes."""
        limits = self.limits
        if context.is_usual and not frame.is_prefixed:
            frame.check(raw, limits, is_rewritten=False)
            try:
                stanza = parse_framed(raw)
            except StreamError as error:
                if error.condition != "bad-namespace-prefix":
                    raise  # otherwise it may be a prefix of the header's
            else:
                return without_sections(stanza, limits) if raw.find(CDATA) > 0 else stanza
        frame.check(raw, limits, is_rewritten=True)
        return canonical(raw, context.opening, limits)

    def _close(self, context: Context, data: bytes, pos: int, events: list[Event]) -> int:
        """Read the stream's end tag at `pos`; 0 when it is not complete."""
        end = pos + 2 + len(context.name)
        written = data[pos + 2 : end]
        white = _SKIP_WHITE.match(data, end) if written == context.name else None
        if white:
            end = white.end()
            if data.startswith(b">", end):
                events.append(StreamClose())
                self._is_over = True
                return end + 1
        if len(data) > end or not context.name.startswith(written):
            raise StreamError("not-well-formed")
        if len(data) - pos > self.limits.header_bytes:
            raise StreamError("policy-violation", "end tag too big")
        return 0


def read_stanza(raw: bytes) -> Stanza:
    """The stanza that these bytes of anywhere are, by the rules for what clients send; StreamError unless
    they are exactly one. It has no default namespace of its own, so that it may stand where that is declared.
    """
    scanner = Scanner(Engine(), _FILED)
    scanner.stepwise = False
    events = scanner.feed(_HEADER + raw)
    last = events[-1]
    if isinstance(last, StreamError):
        raise last
    if len(events) != 2 or not isinstance(last, Stanza) or scanner.pending:
        raise StreamError("not-well-formed", "this is not one stanza")
    if last.kind not in _KINDS:
        raise StreamError("unsupported-stanza-type", last.kind)
    if not _DECLARED.search(last.raw, 0, last.tail):
        return last
    head = start_tag(last.kind, last.attrs)
    return Stanza(last.kind, last.attrs, head + last.raw[last.tail :], len(head), last.payload)
