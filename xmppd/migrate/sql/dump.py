"""Dumps as text, read statement by statement into a database: CREATE TABLE, INSERT and COPY; all others are
passed over.
"""

from __future__ import annotations

import codecs
import re
import sqlite3
from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from pathlib import Path

from xmppd.migrate.record import Losses
from xmppd.migrate.source import LONGEST_VALUE, opened
from xmppd.migrate.sql.base import Dump, Tables, quoted
from xmppd.migrate.sql.garbled import LOST, MOJIBAKE, ODD, garbled, mended
from xmppd.migrate.sql.rows import Rows, Write
from xmppd.migrate.sql.scan import MNESIA, QUALIFIED, Dialect, Scan, Value, names_of

TAB = "\t"
BATCH = 4096
"""Rows that are written at once."""

LONGEST_CREATE = 1 << 20
"""Letters of a definition that is read."""

MOST_FORMS = 1000
"""Lists of columns that the INSERTs of one dump have."""

CREATE = re.compile(
    rf"CREATE\s+(?:TEMP(?:ORARY)?\s+|UNLOGGED\s+|GLOBAL\s+|LOCAL\s+)*TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?({QUALIFIED})\s*\(",
    re.IGNORECASE,
)
_TRIGGER = re.compile(r"CREATE\s+(?:TEMP(?:ORARY)?\s+)?TRIGGER\b[^;]*?\bBEGIN\b", re.IGNORECASE)
_TRIGGER_END = re.compile(r"\bEND\s*;", re.IGNORECASE)
INSERT = re.compile(
    rf"(?:INSERT(?:\s+(?:IGNORE|LOW_PRIORITY|DELAYED|HIGH_PRIORITY|OR\s+\w+))*|REPLACE)\s+INTO\s+({QUALIFIED})"
    r"\s*(\([^()]*\))?\s*(?:OVERRIDING\s+\w+\s+VALUE\s*)?VALUES\s*(?=\()",
    re.IGNORECASE,
)
_COPY = re.compile(
    rf"COPY\s+({QUALIFIED})\s*(\([^()]*\))?\s*FROM\s+stdin\b[^;\n]*;[ \t]*\r?\n", re.IGNORECASE
)
_INTO = re.compile(rf"(?:INSERT\s[^(;']*?INTO|REPLACE\s+INTO|COPY)\s+({QUALIFIED})", re.IGNORECASE)
_USE = re.compile(rf"(?:USE|\\connect(?:\s+-\S+)*)\s+({QUALIFIED}|'[^']*')", re.IGNORECASE)
_DELIMITER = re.compile(r"DELIMITER\s+(\S+)", re.IGNORECASE)
_KEYWORD = re.compile(
    r"(?:SET|SELECT|CREATE|ALTER|INSERT|REPLACE|DROP|DELETE|LOCK|UNLOCK|BEGIN|COMMIT|START|PRAGMA|GRANT|REVOKE|COMMENT"
    r"|UPDATE|ANALYZE|TRUNCATE|CALL|DO|END|SAVEPOINT|RELEASE|VACUUM|REINDEX|REFRESH|SECURITY|WITH|FLUSH|CHANGE"
    r"|CLUSTER|REASSIGN|IMPORT|EXPLAIN|OPTIMIZE|DECLARE|IF|USE|SHOW|REPAIR|CHECK|COPY|ROLLBACK)\b",
    re.IGNORECASE,
)
_NOT_A_COLUMN = re.compile(
    r"(?:PRIMARY\s+KEY|UNIQUE|CONSTRAINT|FULLTEXT|SPATIAL|FOREIGN\s+KEY|CHECK|EXCLUDE|LIKE|PERIOD\s+FOR)\b"
    r"|(?:KEY|INDEX)\s*(?:[`\"(]|\w+\s*(?:USING\s+\w+\s*)?\((?!\d))",
    re.IGNORECASE,
)
"""What begins no column. KEY and INDEX are names of columns too, which PostgreSQL does not quote."""

_COLUMN = re.compile(
    r"""(?:\s|--[^\n]*\n|/\*.*?\*/)*("(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\]]+\]|[\w$]+)""", re.DOTALL
)
_ELEMENT = re.compile(
    r"""(?:--[^\n]*\n|/\*.*?\*/|[^,()'"`/-]+|[/-]|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)+|[,()]""", re.DOTALL
)
_ENCODING = re.compile(rb"(?:client_encoding\s*(?:=|TO)\s*|SET\s+NAMES\s+)'?([\w-]+)", re.IGNORECASE)
_ENCODINGS = {"latin1": "cp1252", "win1252": "cp1252", "latin9": "iso8859-15", "win1251": "cp1251"}
_ENCODINGS |= {"koi8r": "koi8-r", "koi8": "koi8-r", "cp1251": "cp1251", "latin2": "iso8859-2"}
_MYSQL = re.compile(
    rb"-- (?:MySQL|MariaDB) dump |/\*!\d{5} SET|/\*M!\d|(?:INTO|TABLE|TABLES|EXISTS) `", re.IGNORECASE
)
_PAIR = re.compile(rb"\\(.?)", re.DOTALL)
_OTHER_LINE = re.compile(rb"\n(?!delete |insert |select |update |--|begin|commit|\s|$)", re.IGNORECASE)
_FINISHES = (
    (b"PostgreSQL database dump", "-- PostgreSQL database dump complete"),
    (b"-- MySQL dump ", "-- Dump completed"),
    (b"-- MariaDB dump ", "-- Dump completed"),
)
_COPY_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_COPY_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Loader:
    """Reads a dump and writes the wanted rows."""

    def __init__(self, dump: Dump, path: Path, head: bytes, tables: Tables, losses: Losses) -> None:
        self._dump, self._path, self._losses = dump, path, losses
        self._wanted = {table.lower(): table for table in tables}
        self._columns = {table: tuple(columns) for table, columns in tables.items()}
        self._finish = next((end for begin, end in _FINISHES if begin in head[:2000]), "")
        self._dialect = dialect_of(path, head)
        self._created: dict[str, list[str]] = {}
        self._within: dict[str, str] = {}
        self._database = ""
        self._rows: dict[str, Rows] = {}
        self._present: dict[str, set[str]] = {}
        self._counts = dict.fromkeys((table for table, columns in tables.items() if not columns), 0)
        for table, columns in tables.items():
            if columns:
                fields = ", ".join(map(quoted, columns))
                dump.execute(f"CREATE TABLE {quoted(table)} ({fields})")

    def load(self) -> None:
        """Read all of it."""
        odd = (ODD, LOST) if self._dialect.escapes else (ODD,)
        with opened(self._path) as file:
            scan = Scan(file, self._path, self._dialect, odd, self._finish)
            try:
                self._statements(scan)
                self._flush()
            except (sqlite3.Error, OverflowError) as error:
                raise scan.error(f"cannot be kept: {error}") from None
        dump = self._dump
        dump.execute("COMMIT")
        dump.present = {table: frozenset(names) for table, names in self._present.items()}
        dump.counts, dump.marks = self._counts, scan.marks

    def _flush(self) -> None:
        for rows in self._rows.values():
            rows.flush()

    def _statements(self, scan: Scan) -> None:
        is_open = False
        while scan.to_statement():
            word = scan.text[scan.at : scan.at + 8].upper()
            if word.startswith(("INSERT", "REPLACE", "COPY")):
                self._data(scan)
            elif word.startswith("CREATE"):
                self._create(scan)
            elif word[0] == "\\" or word.startswith(("USE", "DELIMITE")):
                self._meta(scan)
            elif _KEYWORD.match(scan.text, scan.at):
                is_open = word.startswith("BEGIN") or (is_open and not word.startswith(("COMMIT", "END")))
                if word == "ROLLBACK":
                    raise scan.error("the shell that wrote it met errors", hint="the database is damaged")
                scan.past_statement()
            else:
                raise scan.error("no statement of SQL begins here")
        if is_open or (self._finish and not scan.is_finished):
            end = "COMMIT" if is_open else self._finish
            raise scan.error(f"the file ends before the line {end!r}", hint="it is truncated")

    def _meta(self, scan: Scan) -> None:
        if match := _DELIMITER.match(scan.text, scan.at):
            scan.past_line()
            if match[1] != ";":
                scan.past("\nDELIMITER ;", "what has another delimiter")
            return
        if match := _USE.match(scan.text, scan.at):
            self._database = match[1]
            self._flush()
            self._rows = {}
        if scan.text[scan.at] == "\\":
            scan.past_line()
        else:
            scan.past_statement()

    def _create(self, scan: Scan) -> None:
        match = CREATE.match(scan.text, scan.at)
        if match is None:
            if match := _TRIGGER.match(scan.text, scan.at):
                self._past_trigger(scan)
            else:
                scan.past_statement()
            return
        table = self._wanted.get(names_of(match[1])[-1].lower())
        if table is not None:
            scan.room(LONGEST_CREATE)
            match = CREATE.match(scan.text, scan.at)
            columns = created(scan.text, match.end()) if match else None
            if columns is None:
                raise scan.error("the columns of this table cannot be read")
            self._created[table] = columns
            self._see(table, columns)
        scan.past_statement()

    def _past_trigger(self, scan: Scan) -> None:
        while not (end := _TRIGGER_END.search(scan.text, scan.at)):
            if len(scan.text) - scan.at > LONGEST_CREATE or not scan.fill():
                raise scan.error("a trigger does not end")
        scan.at = end.end()

    def _see(self, table: str, columns: Sequence[str]) -> None:
        names = {column.lower() for column in columns}
        self._present.setdefault(table, set()).update(
            column for column in self._columns[table] if column.lower() in names
        )

    def _data(self, scan: Scan) -> None:
        match = INSERT.match(scan.text, scan.at) or _COPY.match(scan.text, scan.at)
        if match is None:
            match = _INTO.match(scan.text, scan.at)
            if match and names_of(match[1])[-1].lower() in self._wanted:
                raise scan.error("is no INSERT with VALUES and no COPY from stdin")
            scan.past_statement()
            return
        if rows := self._rows.get(match[0]):
            self._insert(scan, match, rows)
            return
        is_copy = scan.text[scan.at] in "Cc"
        *qualifiers, name = names_of(match[1])
        table = self._wanted.get(name.lower())
        if table is None:
            if is_copy:
                scan.at = match.end() - 1
                scan.past_copy()
            else:
                scan.past_statement()
            return
        self._hold_to_one(scan, table, ".".join([self._database, *qualifiers]))
        columns = names_of(match[2]) if match[2] else self._created.get(table)
        if columns is None:
            hint = "dump the tables with their definitions, or INSERT with names of columns"
            raise scan.error(f"the columns of {table} are not known", hint=hint)
        self._see(table, columns)
        if is_copy:
            self._copy(scan, match, table, columns)
            return
        if len(self._rows) >= MOST_FORMS:
            raise scan.error(f"more than {MOST_FORMS} lists of columns")
        places, write = self._writer(scan, table, columns)
        self._rows[match[0]] = Rows(scan, len(columns), places, write, BATCH)
        self._insert(scan, match, self._rows[match[0]])

    def _hold_to_one(self, scan: Scan, table: str, place: str) -> None:
        """Two databases in one dump would be mixed: their tables have the same names."""
        if self._within.setdefault(table, place) != place:
            hint = "dump one database, or split the file"
            raise scan.error(
                f"there are several tables {table}: in {self._within[table]} and in {place}", hint=hint
            )

    # Rows.

    def _writer(self, scan: Scan, table: str, columns: Sequence[str]) -> tuple[list[int], Write]:
        """Where in a row the wanted columns are, and what writes rows that have these alone."""
        places = {column.lower(): index for index, column in reversed(list(enumerate(columns)))}
        wanted = [column for column in self._columns[table] if column.lower() in places]
        if not wanted:
            return [], lambda rows, _: self._add(table, len(rows))
        names, marks = ", ".join(map(quoted, wanted)), ", ".join("?" * len(wanted))
        sql = f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks})"

        def write(rows: list[Sequence[Value]], is_odd: bool) -> None:
            if is_odd:
                rows = [self._mend(table, wanted, row) for row in rows]
            self._dump.executemany(sql, rows)

        return [places[column.lower()] for column in wanted], write

    def _add(self, table: str, count: int) -> None:
        if table in self._counts:
            self._counts[table] += count

    def _mend(self, table: str, wanted: Sequence[str], row: Sequence[Value]) -> Sequence[Value]:
        out = list(row)
        for index, value in enumerate(row):
            if isinstance(value, str) and (kind := garbled(value, questions=self._dialect.escapes)):
                self._losses.add(kind, "", f"{table}.{wanted[index]}")
                if kind != MOJIBAKE:
                    out[index] = mended(value)
        return out

    def _insert(self, scan: Scan, match: re.Match[str], rows: Rows) -> None:
        head = match[0]
        scan.at = match.end()
        while True:
            rows.statement(head)
            if not scan.text.startswith(head, scan.at):
                return
            scan.at += len(head)
            scan.begin()

    def _copy(self, scan: Scan, match: re.Match[str], table: str, columns: Sequence[str]) -> None:
        places, write = self._writer(scan, table, columns)
        width = len(columns)
        pick = itemgetter(*places) if len(places) > 1 else (lambda fields: tuple(fields[at] for at in places))
        scan.at = match.end()
        for first, lines in scan.copied():
            if set(map(str.count, lines, repeat(TAB))) != {width - 1}:
                number, line = next(it for it in enumerate(lines) if it[1].count(TAB) != width - 1)
                why = f"a row of {table} has {line.count(TAB) + 1} columns and not {width}"
                raise scan.error(why, first + sum(map(len, lines[:number])) + number)
            rows = [
                pick(line.split(TAB)) if "\\" not in line else tuple(map(_copied, pick(line.split(TAB))))
                for line in lines
            ]
            write(rows, scan.is_odd)


def _copied(field: str) -> str | None:
    """A field of COPY, unescaped."""
    if "\\" not in field:
        return field
    if field == "\\N":
        return None
    text = _COPY_ESCAPE.sub(_copy_letter, field)
    return (
        text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    )


def _copy_letter(match: re.Match[str]) -> str:
    if match[3]:
        return _COPY_LETTERS.get(match[3], match[3])
    code = int(match[1], 8) & 255 if match[1] else int(match[2], 16)
    return chr(code) if code < 128 else chr(0xDC00 + code)


def created(text: str, at: int) -> list[str] | None:
    """The columns of a CREATE TABLE whose list begins at `at`; None where it does not end."""
    columns: list[str] = []
    depth, is_first = 0, True
    for match in _ELEMENT.finditer(text, at):
        piece = match[0]
        if piece == ")" and depth == 0:
            return columns
        if is_first and not piece.isspace():
            is_first = False
            begin = match.end() - len(piece.lstrip())
            if (name := _COLUMN.match(piece)) and not _NOT_A_COLUMN.match(text, begin):
                columns.append(names_of(name[1])[0])
        depth += (piece == "(") - (piece == ")")
        is_first = is_first or (piece == "," and depth == 0)
    return None


def dialect_of(path: Path, head: bytes) -> Dialect:
    """How a dump that begins so is written."""
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        encoding = "utf-16-le" if head[:2] == codecs.BOM_UTF16_LE else "utf-16-be"
        return Dialect(escapes=b"`\0" in head, encoding=encoding)
    name = match[1].decode() if (match := _ENCODING.search(head)) else "utf8"
    encoding = _ENCODINGS.get(name.lower().replace("-", "").replace("_", ""), "utf-8")
    if MNESIA.encode() in head:
        return Dialect(_escapes_letters(path), encoding)
    return Dialect(bool(_MYSQL.search(head)), encoding)


def _escapes_letters(path: Path) -> bool:
    """Whether an export2sql escapes by backslashes, which it does on a server whose SQL is not SQLite: then
    no backslash stands alone, no quotation mark without one, and no line break is in a string.
    """
    found = False
    with opened(path) as file:
        rest = b""
        while piece := file.read(1 << 20):
            text = rest + piece
            cut = max(text.rfind(b"\n"), 0)
            whole, rest = text[:cut], text[cut:] if len(text) - cut < LONGEST_VALUE else b""
            if b"\t" in whole or whole.count(b'"') != whole.count(b'\\"') or _OTHER_LINE.search(whole):
                return False
            if b"\\" in whole:
                found = True
                if any(pair[1] not in b'0bntr"\\' for pair in _PAIR.finditer(whole)):
                    return False
    return found
