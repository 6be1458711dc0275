"""The rows of INSERT statements: by a regular expression where they are plain, value by value where not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from xmppd.migrate.sql.scan import ROOM, Scan, Value, unescaped, word_of

Write = Callable[[list[Sequence[Value]], bool], None]
"""Takes rows, and whether they need a closer look."""

LOW = 16_384
"""With fewer letters in the window, a row that does not fit is perhaps only not whole."""

_STANDARD = r"'([^']*(?:''[^']*){0,200})'(?!')"
_ESCAPED = r"'([^'\\]*(?:(?:''|\\.)[^'\\]*){0,200})'(?!')"
_WORD = r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|NULL|[tT]rue|[fF]alse|TRUE|FALSE)"


class Rows:
    """Reads rows of `width` values from a scan and hands on those at `places`, `batch` at once.

    A row tells how the next ones look: which values are strings and which are words. `_row` matches a row of
    this form, with one group for each value that is wanted.
    """

    def __init__(self, scan: Scan, width: int, places: Sequence[int], write: Write, batch: int) -> None:
        self._scan, self._width, self._places = scan, width, places
        self._write, self._batch = write, batch
        self._rows: list[Sequence[Value]] = []
        self._filled, self._odds = scan.filled, scan.odds - scan.is_odd
        self._form: tuple[bool, ...] = ()
        self._plain: re.Pattern[str] | None = None
        self._whole: re.Pattern[str] | None = None
        self._words: list[int] = []

    def statement(self, head: str) -> None:
        """All rows up to the `;` and the line break after it, with the scan behind `head`; of the statements
        that follow and begin so, too, as long as their rows are plain. SourceError.
        """
        scan = self._scan
        if scan.filled != self._filled:
            self.flush()
        while True:
            if self._plain and self._whole:
                if self._run(self._plain, head):
                    return
                match = self._whole.match(scan.text, scan.at)
                if match:
                    if self._take_whole(match):
                        return
                    continue
            if len(scan.text) - scan.at < LOW:
                self.flush()
                if scan.fill():
                    continue
            if self._slow():
                return

    def flush(self) -> None:
        """Hand on what was read."""
        scan = self._scan
        if self._rows:
            self._write(self._rows, scan.odds != self._odds)
            self._rows = []
        self._filled, self._odds = scan.filled, scan.odds - scan.is_odd

    def _run(self, pattern: re.Pattern[str], head: str) -> bool:
        """Rows without escapes as long as there are such; whether the last one ended the statement."""
        scan = self._scan
        text, at, rows, words = scan.text, scan.at, self._rows, self._words
        match_at, again = pattern.match, "\n" + head
        is_over = False
        while match := match_at(text, at):
            at = match.end()
            rows.append(self._with_words(match.groups()) if words else match.groups())
            if len(rows) >= self._batch:
                self.flush()
                rows = self._rows
            if text[at - 1] == ";":
                if text.startswith(again, at):
                    at += len(again)
                    continue
                is_over = True
                break
        scan.at = at
        if is_over:
            self._past_break()
        return is_over

    def _with_words(self, values: Sequence[Any]) -> Sequence[Value]:
        out = list(values)
        for index in self._words:
            out[index] = word_of(out[index])
        return out

    def _take_whole(self, match: re.Match[str]) -> bool:
        escapes = self._scan.dialect.escapes
        values = [value and unescaped(value, escapes=escapes) for value in match.groups()]
        self._rows.append(self._with_words(values) if self._words else values)
        self._scan.at = match.end()
        if len(self._rows) >= self._batch:
            self.flush()
        if match[0][-1] == ";":
            self._past_break()
            return True
        return False

    def _past_break(self) -> None:
        """Past a line break, with so much text behind it that the head of the next statement is whole."""
        scan = self._scan
        if len(scan.text) - scan.at < ROOM:
            self.flush()
            scan.room()
        if scan.text.startswith("\n", scan.at):
            scan.at += 1

    def _slow(self) -> bool:
        """One row of any form; whether it ends the statement."""
        scan = self._scan
        if (sign := scan.peek()) != "(":
            raise scan.error("no row begins here") if sign else scan.too_early("a statement", scan.begun())
        scan.begin()
        scan.at += 1
        values, form = [], []
        while True:
            sign = scan.peek()
            form.append(sign == "'")
            values.append(scan.value())
            sign = scan.peek()
            if sign not in (",", ")"):
                raise scan.error("is no row") if sign else scan.too_early("a row", scan.begun())
            scan.at += 1
            if sign == ")":
                break
            if len(values) > self._width:
                break
        if len(values) != self._width:
            raise scan.error(f"a row has {len(values)} values and not {self._width}")
        self._rows.append([values[place] for place in self._places])
        self._learn(tuple(flag or value is None for flag, value in zip(form, values, strict=True)))
        if scan.filled != self._filled or len(self._rows) >= self._batch:
            self.flush()
        return self._past_row()

    def _past_row(self) -> bool:
        scan = self._scan
        sign = scan.peek()
        if sign == ",":
            scan.at += 1
            return False
        if sign == ";":
            scan.at += 1
        elif sign.isalpha():
            scan.past_statement()  # ON CONFLICT, ON DUPLICATE KEY
        else:
            raise (
                scan.error("a row is not followed by another")
                if sign
                else scan.too_early("a row", scan.begun())
            )
        self._past_break()
        return True

    def _learn(self, form: tuple[bool, ...]) -> None:
        """Expect rows like this one: strings or NULL where `form` says so, words elsewhere."""
        if form == self._form:
            return
        self._form = form
        order = {place: index for index, place in enumerate(self._places)}
        is_in_order = list(self._places) == sorted(set(self._places))
        self._words = [order[place] for place, is_text in enumerate(form) if place in order and not is_text]
        if not is_in_order:
            return
        string = _ESCAPED if self._scan.dialect.escapes else _STANDARD
        simple = r"'([^'\\]*)'(?!')" if self._scan.dialect.escapes else r"'([^']*)'(?!')"
        self._plain = self._compiled(form, simple, string)
        self._whole = self._compiled(form, string, string)

    def _compiled(self, form: tuple[bool, ...], wanted: str, other: str) -> re.Pattern[str]:
        fields = []
        for place, is_text in enumerate(form):
            if place not in self._places:
                fields.append(f"(?:{other.replace('(', '(?:', 1)}|[^\\s',()]+)")
            else:
                fields.append(f"(?:{wanted}|NULL)" if is_text else _WORD)
        return re.compile(r"\s*\(\s*" + r"\s*,\s*".join(fields) + r"\s*\)\s*[,;]", re.DOTALL)
