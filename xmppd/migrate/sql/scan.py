"""The lexis of SQL dumps: blanks, comments, names, strings and values, of a file read in pieces.

A dump is read as text in which each byte that is not of its encoding stands as a lone surrogate (PEP 383), so
that nothing is lost and no line break changes. What is read is data and is never executed.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, StringIO
from pathlib import Path
from typing import Final

from xmppd.migrate.source import LONGEST_VALUE, SourceError

PIECE: Final = 1 << 20
"""Bytes that are read at once."""

MARKS: Final = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""What a file may begin with to say its encoding."""

MNESIA: Final = "-- Mnesia table:"
MOST_MARKS: Final = 100_000

ROOM: Final = 65_536
"""Letters that are there where a statement begins, unless the file ends before: more than any head has."""

Value = str | bytes | int | float | None

NAME: Final = r'(?:"(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\]]+\]|[\w$]+)'
QUALIFIED: Final = rf"{NAME}(?:\s*\.\s*{NAME})*"

_NAMES = re.compile(NAME)
_SPACE = re.compile(r"[\s;]*")
_WORD = re.compile(r"[\w.+$-]+")
_CAST = re.compile(r"\s*::\s*[\w \[\]]+?(?:\(\d+(?:,\d+)?\))?(?=\s*[,)|:])")
_AHEAD = re.compile(r"\s*(.)?", re.DOTALL)
_DOLLARS = re.compile(r"\$(?:[A-Za-z_]\w*)?\$")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
_UNISTR = re.compile(r"\\(?:(\\)|([0-9A-Fa-f]{4})|\+([0-9A-Fa-f]{6})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))")
_LETTERS = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}
_E_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CONSTANTS: dict[str, Value] = {"NULL": None, "TRUE": 1, "FALSE": 0, "DEFAULT": None}
_CHARSET = re.compile(r"(?:_\w+|[nN])\s*$")
DEEPEST = 32
"""Calls within calls: a shell of SQLite writes two."""

_STANDARD_RUN = re.compile(r"""(?:[^;'"`$#/\\-]+|'[^']*'){0,1000}""")
_ESCAPED_RUN = re.compile(r"""(?:[^;'"`$#/\\-]+|'[^'\\]*(?:\\.[^'\\]*){0,100}'){0,1000}""", re.DOTALL)
_STOP = re.compile(r"""[;'"`$#/\\-]""")
_STANDARD_STRING = re.compile(r"'([^']*(?:''[^']*){0,200})'(?!')")
_ESCAPED_STRING = re.compile(r"'([^'\\]*(?:(?:''|\\.)[^'\\]*){0,200})'(?!')", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a dump writes: whether a backslash in a string escapes, and its encoding."""

    escapes: bool = False
    encoding: str = "utf-8"


@dataclass(slots=True)
class Scan:
    """A window onto a dump: `text[at:]` is what comes next, and `filled` counts how often the window moved.

    What of `odd` needs a closer look: `is_odd` says that the window has it, `odds` how many had. `finish` is
    the comment with which a whole dump ends, `marks` are the tables of Mnesia that comments name.
    """

    file: BufferedReader
    path: Path
    dialect: Dialect
    odd: Sequence[re.Pattern[str]] = ()
    finish: str = ""
    text: str = ""
    at: int = 0
    filled: int = 0
    odds: int = 0
    is_odd: bool = False
    is_finished: bool = False
    marks: list[str] = field(default_factory=list)
    _base: int = 0
    _lines: int = 0
    _ended: bool = False
    _begin: int = 0
    _begun: tuple[int, int] = (1, 0)
    _decoder: codecs.IncrementalDecoder = field(init=False)
    _unit: str = field(init=False)

    def __post_init__(self) -> None:
        for mark in MARKS:
            if self.file.peek(4).startswith(mark):
                self._base = len(self.file.read(len(mark)))
                break
        self._unit = "replace" if self.dialect.encoding.startswith("utf-16") else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(self.dialect.encoding)(self._unit)

    # The window.

    def fill(self) -> bool:
        """Read on and forget what is behind `at`; False at the end of the file. SourceError."""
        if self._ended:
            return False
        if self._begin >= 0:
            self._begun, self._begin = self.place(self._begin), -1
        passed = self.text[: self.at]
        self._lines += passed.count("\n")
        self._base += self._size(passed)
        rest = self.text[self.at :]
        data = self.file.read(max(PIECE, len(rest)))
        fresh = self._decoder.decode(data, final=not data)
        self._ended = not data
        self.text, self.at = rest + fresh, 0
        self.filled += 1
        self.is_odd = any(pattern.search(self.text) for pattern in self.odd)
        self.odds += self.is_odd
        return bool(data)

    def begin(self) -> None:
        """Something begins here; where it was is said by `begun`."""
        self._begin = self.at

    def begun(self) -> tuple[int, int]:
        """Line and byte of what was begun last."""
        return self._begun if self._begin < 0 else self.place(self._begin)

    def room(self, letters: int = 0) -> None:
        """Have so many letters (none said: ROOM) in the window, or all that there are."""
        while len(self.text) - self.at < (letters or ROOM) and self.fill():
            pass

    def error(self, why: str, at: int | None = None, hint: str = "") -> SourceError:
        """What is wrong at a place of the window."""
        line, byte = self.place(self.at if at is None else at)
        return SourceError(why, file=self.path, line=line, byte=byte, hint=hint)

    def place(self, at: int) -> tuple[int, int]:
        """Line (from 1) and byte (from 0) in the file of a place in the window."""
        before = self.text[:at]
        return self._lines + before.count("\n") + 1, self._base + self._size(before)

    def _size(self, text: str) -> int:
        return len(text) if text.isascii() else len(text.encode(self.dialect.encoding, self._unit))

    def too_early(self, what: str, place: tuple[int, int]) -> SourceError:
        """The file ends too early."""
        why = f"the file ends in the middle of {what} that begins here"
        return SourceError(why, file=self.path, line=place[0], byte=place[1], hint="it is truncated")

    # Between statements and over them.

    def to_statement(self) -> bool:
        """Go to the next statement, past blanks and comments; False where there is none."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if len(self.text) - self.at < ROOM and not self._ended:
                self.fill()
                continue
            if self.at == len(self.text):
                return False
            if not self._past_comment():
                self.begin()
                return True

    def _past_comment(self) -> bool:
        """Go past a comment, if there is one here."""
        start = self.text[self.at : self.at + 2]
        if start == "--" or (start[:1] == "#" and self.dialect.escapes):
            line = self.text[self.at : self.at + 200].partition("\n")[0]
            if line.startswith(MNESIA) and len(self.marks) < MOST_MARKS:
                self.marks.append(line.removeprefix(MNESIA).strip())
            self.is_finished = self.is_finished or bool(self.finish and line.startswith(self.finish))
            self.past_line()
            return True
        if start == "/*":
            self.at += 2
            self.past("*/", "a comment")
            return True
        return False

    def past_line(self) -> None:
        """Go to the next line."""
        self.past("\n", "")

    def past(self, end: str, what: str) -> None:
        """Go past the next `end`; without one it is an error, or for what is named "" the end of the file."""
        begun = None
        while (found := self.text.find(end, self.at)) < 0:
            begun = begun or self.place(self.at)
            self.at = max(self.at, len(self.text) - len(end) + 1)
            if not self.fill():
                if what:
                    raise self.too_early(what, begun)
                self.at = len(self.text)
                return
        self.at = found + len(end)

    def past_statement(self) -> None:
        """Go past the `;` that ends this statement, whatever strings and comments hold."""
        run = _ESCAPED_RUN if self.dialect.escapes else _STANDARD_RUN
        while True:
            match = run.match(self.text, self.at)
            if match and match.end() > self.at and match.end() < len(self.text):
                self.at = match.end()
                continue
            stop = _STOP.search(self.text, self.at)
            if stop is None:
                self.at = len(self.text)
            elif stop[0] == ";":
                self.at = stop.end()
                return
            else:
                self.at = stop.start()
                self._past_stop(stop[0])
                continue
            if not self.fill():
                raise self.too_early("a statement", self.begun())

    def _past_stop(self, sign: str) -> None:
        self.room(256)
        if sign in "'\"`":
            self._past_string(sign)
        elif sign == "$" and not self.dialect.escapes and (match := _DOLLARS.match(self.text, self.at)):
            self.at = match.end()
            self.past(match[0], "a dollar-quoted string")
        elif not self._past_comment():
            self.at += 1

    def _past_string(self, quote: str) -> None:
        start, begun = self.at, None
        self.at += 1
        stop = _STRING_STOPS[quote, self.dialect.escapes and quote != "`"]
        while True:
            match = stop.search(self.text, self.at)
            if match is None:
                self.at = len(self.text)
            elif match[0] == quote:
                self.at = match.end()
                return
            elif match.end() < len(self.text):
                self.at = match.end() + 1
                continue
            else:
                self.at = match.start()
            begun = begun or self.place(start)
            if not self.fill():
                raise self.too_early("a string", begun)

    def past_copy(self) -> None:
        """Go past the rows of a COPY whose first statement's line break is at `at`."""
        self.past("\n\\.", "the rows of a COPY")
        self.past_line()

    def copied(self) -> Iterator[tuple[int, list[str]]]:
        """The lines of a COPY from here to its end, so many at once as there are, and where in the window
        they begin. SourceError.
        """
        while True:
            self.room(2)
            if self.text.startswith("\\.", self.at):
                self.past_line()
                return
            end = self.text.find("\n\\.", self.at)
            end = self.text.rfind("\n", self.at) if end < 0 else end
            if end < 0:
                if len(self.text) - self.at > LONGEST_VALUE:
                    raise self._too_long(self.place(self.at))
                if not self.fill():
                    raise self.too_early("the rows of a COPY", self.begun())
                continue
            lines = self.text[self.at : end].split("\n")
            if end - self.at > LONGEST_VALUE and max(map(len, lines)) > LONGEST_VALUE:
                raise self._too_long(self.place(self.at))
            yield self.at, [line.removesuffix("\r") for line in lines] if lines[0].endswith("\r") else lines
            self.at = end + 1

    # Values.

    def peek(self) -> str:
        """The next letter that is not blank, which is then at `at`; "" at the end of the file."""
        while True:
            match = _AHEAD.match(self.text, self.at)
            if match and match[1]:
                self.at = match.start(1)
                return match[1]
            self.at = len(self.text)
            if not self.fill():
                return ""

    def value(self, depth: int = 0) -> Value:
        """One value, up to what follows it. SourceError."""
        value = self._term(depth)
        while (sign := self.peek()) and sign in "|:":
            self.room(256)
            if sign == "|" and self.text.startswith("||", self.at):
                self.at += 2
                value = self._bounded(_text(value) + _text(self._term(depth)))
            elif match := _CAST.match(self.text, self.at):
                self.at = match.end()
            else:
                raise self.error("is no value")
        return value

    def _term(self, depth: int) -> Value:
        if depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} calls within each other")
        sign = self.peek()
        if sign == "'" or (sign == '"' and self.dialect.escapes):
            return self._string(sign, escapes=self.dialect.escapes)
        self.room(256)
        match = _WORD.match(self.text, self.at)
        if match is None:
            raise self.error("is no value here") if sign else self.too_early("a row", self.begun())
        if match.end() - self.at >= 200:
            return self._long_word()
        word, begun = match[0], self.at
        self.at = match.end()
        follows = self.text[self.at : self.at + 1]
        if follows == "'" or (word[0] == "_" and self.peek() in ("'", "0", "x", "X")):
            return self._prefixed(word)
        if self.peek() == "(":
            self.at += 1
            return self._called(word.lower(), self._arguments(depth + 1), begun)
        return self._plain(word, begun)

    def _plain(self, word: str, at: int) -> Value:
        if word.upper() in _CONSTANTS:
            return _CONSTANTS[word.upper()]
        if word[:2] in ("0x", "0X"):
            return self._blob(word[2:], at)
        if number := _NUMBER.fullmatch(word):
            return number_of(number[0])
        if word.lower() in ("inf", "nan", "infinity", "-inf", "current_timestamp"):
            return word
        raise self.error("is no value", at)

    def _long_word(self) -> Value:
        """A word longer than the room, which can only be a blob in hexadecimal digits."""
        begun = self.place(self.at)
        pieces, size = [], 0
        while match := _WORD.match(self.text, self.at):
            size += match.end() - self.at
            if size > 2 * LONGEST_VALUE:
                raise self._too_long(begun)
            pieces.append(match[0])
            self.at = match.end()
            if self.at < len(self.text) or not self.fill():
                break
        word = "".join(pieces)
        if word[:2] not in ("0x", "0X"):
            raise self.error("is no value")
        return self._blob(word[2:], self.at)

    def _prefixed(self, word: str) -> Value:
        """What follows a prefix: X'..', E'..', N'..', _binary '..'."""
        if word in ("X", "x"):
            return self._blob(self._string("'", escapes=False), self.at)
        if word in ("E", "e"):
            return self._string("'", escapes=True, letters=_E_LETTERS)
        if not _CHARSET.match(word):
            raise self.error("is no value")
        return self._term(1) if self.peek() != "'" else self._string("'", escapes=self.dialect.escapes)

    def _blob(self, digits: str, at: int) -> Value:
        """A blob, as text where it is UTF-8."""
        try:
            data = bytes.fromhex(digits)
        except ValueError:
            raise self.error("is no blob", at) from None
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    def _arguments(self, depth: int) -> list[Value]:
        values: list[Value] = []
        while self.peek() != ")":
            values.append(self.value(depth))
            if self.peek() == ",":
                self.at += 1
            elif self.peek() != ")":
                raise self.error("is no list of values")
        self.at += 1
        return values

    def _called(self, name: str, values: list[Value], at: int) -> Value:
        """What replace(), char(), unistr() or concat() give, which are how shells write line breaks."""
        match name, values:
            case "replace", [text, old, new]:
                old, new, text = _text(old), _text(new), _text(text)
                if old and len(text) + text.count(old) * (len(new) - len(old)) > LONGEST_VALUE:
                    raise self._too_long(self.place(at))
                return text.replace(old, new) if old else text
            case "char", _:
                try:
                    return "".join(chr(int(value or 0)) for value in values)
                except (ValueError, OverflowError):
                    raise self.error("is no letter", at) from None
            case "unistr", [text]:
                return unistr(_text(text))
            case "concat", _:
                return self._bounded("".join(map(_text, values)))
        raise self.error(f"{name[:40]}() is no value", at)

    def _bounded(self, text: str) -> str:
        if len(text) > LONGEST_VALUE:
            raise self._too_long(self.place(self.at))
        return text

    def _too_long(self, place: tuple[int, int]) -> SourceError:
        why = f"a value has more than {LONGEST_VALUE} bytes"
        return SourceError(why, file=self.path, line=place[0], byte=place[1])

    def _string(self, quote: str, *, escapes: bool, letters: dict[str, str] = _LETTERS) -> str:
        """A string whose opening quote is at `at`."""
        quick = _ESCAPED_STRING if escapes else _STANDARD_STRING
        match = quick.match(self.text, self.at)
        if match and match.end() < len(self.text) and letters is _LETTERS:
            self.at = match.end()
            return unescaped(match[1], escapes=escapes)
        return self._long_string(quote, escapes, letters)

    def _long_string(self, quote: str, escapes: bool, letters: dict[str, str]) -> str:
        begun = self.place(self.at)  # such strings are rare
        self.at += 1
        out, stop = StringIO(), _STRING_STOPS[quote, escapes]
        while True:
            match = stop.search(self.text, self.at)
            end = match.start() if match else len(self.text)
            out.write(self.text[self.at : end])
            if out.tell() > LONGEST_VALUE:
                raise self._too_long(begun)
            self.at = end
            if end + 1 >= len(self.text) and self.fill():
                continue
            if match is None or (match[0] == "\\" and self.at + 1 >= len(self.text)):
                raise self.too_early("a string", begun)
            follows = self.text[self.at + 1 : self.at + 2]
            self.at += 2
            if match[0] == "\\":
                out.write(letters.get(follows, follows))
            elif follows == quote:
                out.write(quote)
            else:
                self.at -= 1
                return out.getvalue()


_STRING_STOPS = {
    (quote, escapes): re.compile(f"[{quote}\\\\]" if escapes else quote)
    for quote in "'\"`"
    for escapes in (True, False)
}


def unescaped(raw: str, *, escapes: bool) -> str:
    """What the inner part of a string means."""
    if escapes and "\\" in raw:
        return "".join(
            (_LETTERS.get(piece, piece) if index % 2 else piece.replace("''", "'"))
            for index, piece in enumerate(_BACKSLASHED.split(raw))
        )
    return raw.replace("''", "'") if "''" in raw else raw


def unistr(text: str) -> str:
    """What SQLite's unistr() makes of a text."""

    def letter(match: re.Match[str]) -> str:
        try:
            return match[1] or chr(int(match[2] or match[3] or match[4] or match[5], 16))
        except (ValueError, OverflowError):
            return match[0]

    joined = _UNISTR.sub(letter, text)
    return (
        joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _has_pair(joined) else joined
    )


def _has_pair(text: str) -> bool:
    return any("\ud800" <= letter <= "\udbff" for letter in text)


def number_of(word: str) -> int | float:
    """A number as it stands: an integer of 64 bits, or a float."""
    digits = word.lstrip("+-")
    if digits.isdigit() and len(digits) < 20 and -(1 << 63) <= (whole := int(word)) < 1 << 63:
        return whole
    return float(word)


def word_of(word: str) -> Value:
    """A bare word of a row: NULL, true, false or a number; anything else as it stands."""
    if word.upper() in _CONSTANTS:
        return _CONSTANTS[word.upper()]
    return number_of(word) if _NUMBER.fullmatch(word) else word


def names_of(text: str) -> list[str]:
    """The names of a list or of a qualified name, unquoted."""
    return [bare(name) for name in _NAMES.findall(text)]


def bare(name: str) -> str:
    """A name without its quotes."""
    if name[0] in '"`':
        return name[1:-1].replace(name[0] * 2, name[0])
    return name[1:-1] if name[0] == "[" else name


def _text(value: Value) -> str:
    return (
        "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    )
