"""The part of Lua in which Prosody stores data, parsed and never run: `return {...};` and `item({...});`.

A table is a dict: positional values are under 1, 2, 3 and so on, keys in brackets or before `=` under what
they are. `nil` is no value. All else that Lua has (calls, operators, comments, long brackets) is an error
with its place. Strings are bytes in Lua; here they are text, with surrogates for bytes that are no UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import BinaryIO, Final, NoReturn, TypeAlias

from xmppd.migrate.source import LONGEST_VALUE

LONGEST_TABLE: Final = 4 * LONGEST_VALUE
"""The most bytes of a file that is one table."""

LONGEST_ITEM: Final = 4 * LONGEST_VALUE
"""The most bytes of one item of a list: a value with each byte escaped."""

MOST_VALUES: Final = 1 << 22
"""The most values of a table with all tables in it."""

MOST_ESCAPES: Final = 1 << 20
"""The most escapes in one string: each costs some 130 bytes while it is read."""

DEEPEST: Final = 200
"""Tables within tables; Prosody writes 127 at most."""

CHUNK: Final = 1 << 20


class Flag(Enum):
    """A boolean as a key: in Python's dicts True and 1 are the same key, in Lua's tables they are two."""

    FALSE = "false"
    TRUE = "true"


Key: TypeAlias = "str | int | float | Flag"
Value: TypeAlias = "str | int | float | bool | Table"
Table: TypeAlias = "dict[Key, Value]"


class LuaError(ValueError):
    """What cannot be read, and where: `line` counts from 1, `byte` from 0."""

    def __init__(self, why: str, line: int, byte: int) -> None:
        super().__init__(f"line {line} (byte {byte}): {why}")
        self.why, self.line, self.byte = why, line, byte


class _Fault(Exception):
    """The same while only the place in the text at hand is known."""

    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why, self.at = why, at


# Texts are decoded as Latin-1, so a character is a byte. Only repeats of one character are possessive: Python
# before 3.11.5 goes on at the wrong place behind a possessive group that matched in part.
_PLAIN = r'"([^"\\\r\n]*+)"'
_ESCAPED = rf'"([^"\\\r\n]*+(?:\\(?:\r\n|[\s\S])[^"\\\r\n]*+){{0,{MOST_ESCAPES}}})"'
_NUMBER = r"(-?[0-9]{1,64}(?:\.[0-9]{0,64})?(?:[eE][-+]?[0-9]{1,4})?)"

_ENTRY = re.compile(
    rf"""[ \t\r\n]*+
    (?: (?: \[[ \t\r\n]*+ (?: {_PLAIN} | {_ESCAPED} | {_NUMBER} | (true|false)) [ \t\r\n]*+\]
          | ([A-Za-z_][A-Za-z_0-9]*+)
        ) [ \t\r\n]*+ = [ \t\r\n]*+
    )?
    (?: (\{{)
      | (?: {_PLAIN} | {_ESCAPED} | {_NUMBER} | (true|false|nil)) [ \t\r\n]*+ (?: [;,] | (?=\}}) )
    )
    | [ \t\r\n]*+ (\}}) [ \t\r\n]*+ (?: [;,] | (?=[}})]) | \Z )
    """,
    re.VERBOSE,
)
_PLAIN_KEY, _ESCAPED_KEY, _NUMBER_KEY, _FLAG_KEY, _NAME_KEY = 1, 2, 3, 4, 5
_OPEN, _PLAIN_VALUE, _ESCAPED_VALUE, _NUMBER_VALUE, _WORD, _CLOSE = 6, 7, 8, 9, 10, 11

_RETURN = re.compile(r"[ \t\r\n]*+return[ \t\r\n]*+(\{)?")
_RETURN_END = re.compile(r"[ \t\r\n]*+;?[ \t\r\n]*+")
_ITEM = re.compile(r"[ \t\r\n;]*+(?:(\Z)|item[ \t\r\n]*+\([ \t\r\n]*+(\{)?)")
_ITEM_END = re.compile(r"[ \t\r\n]*+\)")
_BLANK = re.compile(r"[ \t\r\n]*+")
_KEY = re.compile(
    rf"(?:\[[ \t\r\n]*+(?:{_PLAIN}|{_ESCAPED}|{_NUMBER}|true|false)[ \t\r\n]*+\]|[A-Za-z_][A-Za-z_0-9]*+)"
    r"[ \t\r\n]*+=[ \t\r\n]*+"
)
_VALUE = re.compile(rf"(?:\}}|{_PLAIN}|{_ESCAPED}|{_NUMBER}|(?:true|false|nil)\b)[ \t\r\n]*+")
_ESCAPE = re.compile(r"((?:\\[0-9]{3}){1,1024})|\\(?:[0-9]{1,3}|\r\n|[\s\S])")

_MEANS: Final = {
    **{"\\" + format(code, f"0{width}d"): chr(code) for width in (1, 2) for code in range(100)},
    **{f"\\{letter}": meant for letter, meant in zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True)},
    **{f"\\{ending}": "\n" for ending in ("\n", "\r\n", "\r")},
}
"""Escape -> the byte it means."""

_KEYWORDS: Final = frozenset(
    "and break do else elseif end false for function goto if in local nil not or repeat return then true"
    " until while".split()
)


def table_of(data: bytes) -> Table:
    """The table that a `.dat` file returns. LuaError."""
    text = data.decode("latin-1")
    try:
        if len(text) > LONGEST_TABLE:
            raise _Fault(f"more than {LONGEST_TABLE} bytes", LONGEST_TABLE)
        head = _RETURN.match(text)
        if head is None or head[1] is None:
            _refuse(text, head.end() if head else 0, "expected 'return {'")
        table, at = _table(text, head.end())
        at = _skip(_RETURN_END, text, at)
        if at != len(text):
            raise _Fault("something follows the table", at)
    except _Fault as fault:
        raise _placed(fault, text, 0, 1) from None
    return table


def items_of(file: BinaryIO) -> Iterator[Table]:
    """The tables of a `.list` file, with memory for one of them. LuaError behind the last good one."""
    text, at, byte, line, is_whole = "", 0, 0, 1, False
    while True:
        try:
            found = _item(text, at)
        except _Fault as fault:  # or the item goes on in what was not read yet
            if is_whole:
                raise _placed(fault, text, byte, line) from None
            if len(text) - at > LONGEST_ITEM:
                raise _placed(
                    _Fault(f"an item of more than {LONGEST_ITEM} bytes", at), text, byte, line
                ) from None
            found = None
        if found is not None:
            table, at = found
            yield table
        elif is_whole:
            return
        else:
            byte, line = byte + at, line + text.count("\n", 0, at)
            more = file.read(max(CHUNK, len(text) - at))
            text, at, is_whole = text[at:] + more.decode("latin-1"), 0, not more


def unescaped(raw: str) -> str | None:
    """The text that a string means, given without its quotation marks and read as UTF-8; None where it has an
    escape that is not known.
    """
    try:
        return _unescaped(raw if raw.isascii() else raw.encode().decode("latin-1"), 0)
    except _Fault:
        return None


def _item(text: str, at: int) -> tuple[Table, int] | None:
    """The item that begins here, and where the next one does; None at the end."""
    head = _ITEM.match(text, at)
    if head is not None and head[1] is not None:
        return None
    if head is None or head[2] is None:
        _refuse(text, head.end() if head else _skip(_BLANK, text, at), "expected 'item({'")
    table, at = _table(text, head.end())
    end = _ITEM_END.match(text, at)
    if end is None:
        _refuse(text, _skip(_BLANK, text, at), "expected ')'")
    return table, end.end()


def _table(text: str, at: int) -> tuple[Table, int]:
    """The table whose brace was opened just before `at`, and the place behind its end."""
    match, is_simple = _ENTRY.match, text.isascii() and len(text) <= LONGEST_VALUE
    table: Table = {}
    position, left = 0, MOST_VALUES
    outer: list[tuple[Table, int]] = []
    while True:
        found = match(text, at)
        if found is None:
            _refuse_entry(text, at)
        kind = found.lastindex
        if kind == _CLOSE:
            if not outer:
                return table, found.end(_CLOSE)
            at = found.end()
            table, position = outer.pop()
            continue
        key: Key | None = found[_PLAIN_KEY]
        if key is None or not is_simple:
            key = _key(found)
            if key is None:
                key = position = position + 1
        left -= 1
        at = found.end()
        if kind == _OPEN:
            if len(outer) >= DEEPEST:
                raise _Fault(f"more than {DEEPEST} tables within each other", at)
            outer.append((table, position))
            inner: Table = {}
            table[key] = inner
            table, position = inner, 0
        elif kind == _PLAIN_VALUE and is_simple:
            table[key] = found[_PLAIN_VALUE]
        elif (value := _value(found)) is not None:
            table[key] = value
        else:
            table.pop(key, None)
        if left < 0:
            raise _Fault(f"more than {MOST_VALUES} values", at)


def _key(found: re.Match[str]) -> Key | None:
    """The key of an entry; None for a positional value."""
    if (text := found[_PLAIN_KEY]) is not None:
        return _text(text, found.start(_PLAIN_KEY))
    if (text := found[_ESCAPED_KEY]) is not None:
        return _unescaped(text, found.start(_ESCAPED_KEY))
    if (text := found[_NUMBER_KEY]) is not None:
        return _number(text, found.start(_NUMBER_KEY))
    if (text := found[_FLAG_KEY]) is not None:
        return Flag(text)
    name = found[_NAME_KEY]
    if name in _KEYWORDS:
        raise _Fault("a word of the language as a key", found.start(_NAME_KEY))
    return name


def _value(found: re.Match[str]) -> str | int | float | bool | None:
    """The value of an entry that opens no table; None for `nil`."""
    kind = found.lastindex or 0
    text, at = found[kind], found.start(kind)
    if kind == _ESCAPED_VALUE:
        return _unescaped(text, at)
    if kind == _NUMBER_VALUE:
        return _number(text, at)
    return _text(text, at) if kind == _PLAIN_VALUE else _WORDS[text]


_WORDS: Final = {"true": True, "false": False, "nil": None}


def _text(raw: str, at: int) -> str:
    if len(raw) > LONGEST_VALUE:
        raise _Fault(f"a string of more than {LONGEST_VALUE} bytes", at)
    return raw if raw.isascii() else raw.encode("latin-1").decode("utf-8", "surrogateescape")


def _unescaped(raw: str, at: int) -> str:
    try:
        text = _ESCAPE.sub(_meant, raw)
    except _Fault as fault:
        raise _Fault(fault.why, at + fault.at) from None
    return _text(text, at)


def _meant(escape: re.Match[str]) -> str:
    """The bytes of one escape, or of as many `\\ddd` as there are in a row."""
    try:
        run = escape[1]
        return bytes(map(int, run[1:].split("\\"))).decode("latin-1") if run else _MEANS[escape[0]]
    except (KeyError, ValueError):
        raise _Fault("an escape that is not known", escape.start()) from None


def _number(text: str, at: int) -> int | float:
    if text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    if number - number != 0:
        raise _Fault("a number out of range", at)
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _refuse_entry(text: str, at: int) -> NoReturn:
    """Say what is wrong with the entry of a table that should begin here."""
    start = _skip(_BLANK, text, at)
    at = _skip(_KEY, text, start)
    is_value = not text.startswith("}", at) or at == start
    if is_value and (end := _skip(_VALUE, text, at)) != at:
        _refuse(text, end, "expected ';', ',' or '}'")
    _refuse(text, at, "expected a value")


def _refuse(text: str, at: int, expected: str) -> NoReturn:
    """Say what is wrong here, without a word of what stands in the file: it may be a password."""
    rest = text[at : at + 80]
    if not rest:
        why = "the file ends too early"
    elif rest[0] == '"':
        why = f"a string that does not end on its line, or has more than {MOST_ESCAPES} escapes"
    elif rest.startswith("--"):
        why = "a comment"
    elif re.match(r"\[=*\[", rest):
        why = "a long bracket"
    elif re.match(r"[A-Za-z_][A-Za-z_0-9.:]*[ \t]*[(\"'{\[]", rest) and not rest.startswith(
        ("item", "return")
    ):
        why = "a call"
    elif rest.startswith(".."):
        why = "a concatenation"
    else:
        why = expected
    raise _Fault(why, at)


def _placed(fault: _Fault, text: str, byte: int, line: int) -> LuaError:
    return LuaError(fault.why, line + text.count("\n", 0, fault.at), byte + fault.at)
