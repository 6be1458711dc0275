"""Erlang terms as `io:format("~p.~n")` writes them: parsed and never executed, strictly, with bounds.

A file is bytes; it is read as Latin-1, so that a letter is a byte. The letters of a binary are collected as
bytes again and are UTF-8 to those who wrote them. Line breaks never stand raw within quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedReader
from typing import Any, Final, NoReturn, TypeAlias

from xmppd.migrate.source import LONGEST_VALUE

LONGEST_TERM: Final = 2 * LONGEST_VALUE
"""Bytes of one term with its line breaks."""

DEEPEST_TERM: Final = 256
"""Levels of tuples and lists: an element of XML takes two."""

PIECE: Final = 1 << 20
"""Bytes that are looked at together."""

LARGE: Final = 1 << 20
"""Letters above which tokens are not held all at once."""


class BadTerm(ValueError):
    """The text is not a term, or one that nobody means."""


class Atom(str):
    """An atom; a binary is plain `str`, or `bytes` where it is not UTF-8."""

    __slots__ = ()


class Chars(str):
    """A list of letters in quotes, as old software keeps text."""

    __slots__ = ()


class Opaque(str):
    """A process, reference, function or port: it meant something to the machine that wrote it."""

    __slots__ = ()


Term: TypeAlias = Any
"""str, bytes, Atom, Chars, Opaque, int, float, and tuple, list and dict of terms."""

_QUOTED = r'"(?:[^"\\\n]++|\\[^\n])*+"'
_BINARY = rf"<<(?:\s*+(?:{_QUOTED}(?:/utf8)?|\d++)\s*+,?+)*+\s*+>>"
_TOKEN = re.compile(
    rf"""\s*+(
    [{{}}\[\],]
    | {_BINARY}
    | [a-z\xdf-\xf6\xf8-\xff][\w@\xc0-\xd6\xd8-\xf6\xf8-\xff]*+
    | -?\d++(?:\.\d++(?:[eE][-+]?\d++)?|\#[0-9a-zA-Z]++)?
    | {_QUOTED}(?:\s++{_QUOTED})*+
    | '(?:[^'\\\n]++|\\[^\n])*+'
    | \$(?:\\(?:x\{{[0-9a-fA-F]++\}}|x[0-9a-fA-F]{{2}}|[0-7]{{1,3}}|\^.|.)|.)
    | <\d++\.\d++\.\d++>
    | \#(?:Ref|Fun|Port)<[^<>\n]*+>
    | \#\{{ | => | \S
    )""",
    re.VERBOSE | re.ASCII,
)
_BLANK = re.compile(rb"(?:\s++|%[^\n]*+\n?)*+")
_COMMENTS = re.compile(r"(?:\s++|%[^\n]*+\n?)*+")
_SEGMENT = re.compile(rf"({_QUOTED})(/utf8)?|(\d+)", re.ASCII)
_ESCAPE = re.compile(r"\\(?:x\{([0-9a-fA-F]+)\}|x([0-9a-fA-F]{2})|([0-7]{1,3})|\^(.)|(.))", re.DOTALL)
_CLOSING: Final[Mapping[str, str]] = {"{": "}", "[": "]", "#": "}"}
_LETTERS: Final[Mapping[str, str]] = {
    "b": "\b",
    "d": "\x7f",
    "e": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "s": " ",
    "t": "\t",
    "v": "\v",
}


def terms_in(file: BufferedReader) -> Iterator[tuple[int, int, bytes | None, bool]]:
    """The terms of a file, unparsed: (line, byte, text without its full stop, whether there was one). The
    text is None where it would have more than LONGEST_TERM bytes; only the last can be without a full stop.
    """
    rest, line, byte, end = b"", 1, 0, b".\n"
    long: tuple[int, int] | None = None  # where a term begins that is too long
    while piece := file.read(PIECE):
        rest += piece
        if b".\r\n" in piece:
            end = b".\r\n"
        *whole, rest = rest.split(end)
        for text in whole:
            is_short = long is None and len(text) <= LONGEST_TERM
            yield *(long or _begun(text, line, byte)), text if is_short else None, True
            line, byte, long = line + text.count(b"\n") + 1, byte + len(text) + len(end), None
        if len(rest) > LONGEST_TERM:
            long = long or _begun(rest, line, byte)
            passed, rest = rest[:-2], rest[-2:]
            line, byte = line + passed.count(b"\n"), byte + len(passed)
    if long is not None or not _BLANK.fullmatch(rest):
        text = rest.rstrip()
        yield (
            *(long or _begun(rest, line, byte)),
            None if long else text.removesuffix(b"."),
            text.endswith(b"."),
        )


def _begun(text: bytes, line: int, byte: int) -> tuple[int, int]:
    """Line and byte of a term behind the white space and comments before it."""
    if text.startswith(b"{"):
        return line, byte
    blank = _BLANK.match(text)
    size = blank.end() if blank is not None else 0
    return line + text.count(b"\n", 0, size), byte + size


def term_of(text: str) -> Term:
    """The one term that a text (letters up to U+00FF) is, with or without its full stop. BadTerm."""
    text = _COMMENTS.sub("", text) if text.startswith("%") else text
    if len(text) < LARGE:
        return _build(_TOKEN.findall(text))
    return _build(found[1] for found in _TOKEN.finditer(text))


def _build(tokens: Iterable[str]) -> Term:
    builder = _Builder()
    source = iter(tokens)
    for token in source:
        step = _STEPS.get(token)
        if step is not None:
            step(builder, token)
        elif builder.wants_value:
            builder.items.append(_leaf(token, token[0]))
            builder.wants_value = builder.may_close = False
        elif token == "." and not builder.opener:
            break
        else:
            _bad(token)
    if builder.opener or len(builder.items) != 1:
        raise BadTerm("it ends too early")
    for token in source:
        _bad(token)
    return builder.items[0]


class _Builder:
    """What is open: the items of this level and the bracket that opened it, those around it on the stack.

    A value may come where one is wanted, a closing bracket where none is, or at once.
    """

    __slots__ = ("items", "may_close", "opener", "stack", "wants_value")

    def __init__(self) -> None:
        self.stack: list[tuple[str, list[Term]]] = []
        self.opener = ""
        self.items: list[Term] = []
        self.wants_value, self.may_close = True, False

    def separate(self, token: str) -> None:
        if self.wants_value or not self.opener or (token == "=>" and self.opener != "#"):
            _bad(token)
        if token == "=>":
            self.items.append(_ARROW)
        self.wants_value = True

    def begin(self, token: str) -> None:
        if not self.wants_value:
            _bad(token)
        if len(self.stack) >= DEEPEST_TERM:
            raise BadTerm(f"more than {DEEPEST_TERM} levels")
        self.stack.append((self.opener, self.items))
        self.opener, self.items, self.may_close = token[0], [], True

    def end(self, token: str) -> None:
        if _CLOSING.get(self.opener) != token or (self.wants_value and not self.may_close):
            _bad(token)
        value = _closed(self.opener, self.items)
        self.opener, self.items = self.stack.pop()
        self.items.append(value)
        self.wants_value = self.may_close = False


_STEPS: Final[Mapping[str, Callable[[_Builder, str], None]]] = {
    ",": _Builder.separate,
    "=>": _Builder.separate,
    "{": _Builder.begin,
    "[": _Builder.begin,
    "#{": _Builder.begin,
    "}": _Builder.end,
    "]": _Builder.end,
}


class _Arrow:
    """What stands between a key and a value until the map is whole."""


_ARROW: Final = _Arrow()


def _closed(opener: str, items: list[Term]) -> Term:
    if opener == "{":
        return tuple(items)
    if opener == "[":
        return items
    if any((item is _ARROW) != (place % 3 == 1) for place, item in enumerate(items)) or len(items) % 3:
        raise BadTerm("a map without `=>`")
    try:
        return dict(zip(items[::3], items[2::3], strict=True))
    except TypeError:
        raise BadTerm("a map with a key that is no plain value") from None


def _bad(token: str) -> NoReturn:
    raise BadTerm(f"{token[:20]!r} in a wrong place")


def _leaf(token: str, first: str) -> Term:
    if first == "<":
        if token.startswith("<<"):
            return _binary(token)
        if len(token) > 1:
            return Opaque(token)
    elif first.islower():
        return Atom(token)
    elif first.isdigit() or (first == "-" and len(token) > 1):
        return _number(token)
    elif first == '"' and len(token) > 1:
        return Chars("".join(_unescaped(part[1][1:-1]) for part in _SEGMENT.finditer(token)))
    elif first == "'" and len(token) > 1:
        return Atom(_unescaped(token[1:-1]))
    elif first == "$" and len(token) > 1:
        return ord(_unescaped(token[1:]))
    elif first == "#" and len(token) > 1:
        return Opaque(token)
    _bad(token)


def _number(token: str) -> int | float:
    base, is_based, digits = token.partition("#")
    try:
        if is_based:
            return int(digits, int(base))
        return float(token) if "." in token else int(token)
    except ValueError:
        raise BadTerm(f"{token[:20]!r} is no number") from None


def _binary(token: str) -> str | bytes:
    """A binary: bytes that are letters, escapes and numbers; `str` where they are UTF-8."""
    body = token[3:-3]
    if token[2] == '"' and token[-3] == '"' and len(token) > 5 and '"' not in body and "\\" not in body:
        if body.isascii():
            return body
        data = body.encode("latin-1")
    elif '"' not in token:
        data = _numbers(token[2:-2])
    else:
        data = b"".join(map(_segment, _SEGMENT.finditer(token)))
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _numbers(text: str) -> bytes:
    try:
        return bytes(map(int, text.split(","))) if text.strip() else b""
    except ValueError:
        raise BadTerm(f"{text[:20]!r} are no bytes") from None


def _segment(found: re.Match[str]) -> bytes:
    quoted, is_utf_8, number = found.groups()
    if number:
        if len(number) > 3 or int(number) > 255:
            raise BadTerm(f"{number[:20]} is no byte")
        return bytes((int(number),))
    text = _unescaped(quoted[1:-1])
    try:
        data = text.encode("latin-1")
        if is_utf_8:
            data.decode()
        return data
    except UnicodeDecodeError:
        return text.encode()
    except UnicodeEncodeError:
        if is_utf_8:
            return text.encode()
        raise BadTerm("a letter that is no byte") from None


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_escaped, text) if "\\" in text else text


def _escaped(found: re.Match[str]) -> str:
    wide, short, octal, control, letter = found.groups()
    if letter:
        return _LETTERS.get(letter, letter)
    if control:
        return chr(ord(control) & 31)
    number = int(octal, 8) if octal else int(wide or short, 16) if len(wide or short) < 7 else 0x110000
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise BadTerm("an escape that is no letter")
    return chr(number)


def text_of(term: Term) -> str:
    """The text that a binary or a string is. BadTerm for anything else, and for bytes that are no UTF-8."""
    if isinstance(term, bytes):
        raise BadTerm("text that is not UTF-8")
    if isinstance(term, list) and not term:  # an empty string of old software
        return ""
    if not isinstance(term, str) or isinstance(term, Atom | Opaque):
        raise BadTerm("no text where one is meant")
    return _from_latin_1(term) if isinstance(term, Chars) else term


def _from_latin_1(text: str) -> str:
    """Old software kept UTF-8 as a list of bytes."""
    try:
        return text.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return str(text)
