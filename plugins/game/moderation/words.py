"""Lists of words, and where a text has one of them: what stands by itself is looked up word by word, all else
is found by automata of Aho and Corasick, so that a text costs the same however many words there are.

A list is a file of lines; its name without `.txt` is its language, `any` for all. A line is a word or some
words; `[ACTION]`, what is done about those below it; `# a remark`; or `!word`, which is no offence whatever
is in it. A word is found by itself; with a star before or behind it within others, too: `*word*`, `word*`.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import filterfalse
from time import perf_counter
from typing import Any, Final, NamedTuple

from xmppd.plugin import Lru

from .folding import Folder, squeezed
from .said import unescaped

ACTIONS: Final = ("pass", "flag", "mask", "shadow", "refuse")
"""What may be done about a text, the mildest first."""
ANY: Final = "any"
SLICE_SECONDS: Final = 0.0005
"""How long lists are read in one turn of the loop."""
KEYS: Final = 16_000
"""Of one automaton. It is made, and thrown away, at a stretch: that is 10 ms."""
LONGEST: Final = 100
"""Characters of a word."""
MOST: Final = 50
"""So many words are looked for in one text; with more it is refused."""
SPELLED: Final = 4
"""So long is a word at least that is found within what is spelled letter by letter."""
MOST_SPELLED: Final = 24
"""Letters of what is spelled so that are looked at."""
PATTERNS: Final = 2_000
TOKENS: Final = 20_000
"""Words of texts that are remembered with what is made of them."""
WRITTEN: Final = 40_000
"""Of words as they are written, with what is beside them, it is remembered so often that they are fine."""
SHORT: Final = 40
"""Characters of one that is remembered."""
PLAIN: Final = re.compile("[A-Za-z0-9]{6,}").fullmatch
"""Finds a word in which nothing else can be, and whose ends tell it from nearly all others."""
CLUE: Final = ""
"""In the place of an entry: a part of one that has several words."""
FOUND: Final = -1

_SPELLED: Final = re.compile(r" \S \S \S(?: \S)*(?= )")
_RUNS: Final = re.compile(r"(.)\1*", re.DOTALL)
_UNSPACED: Final = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"))
"""Scripts that have no spaces between words, and whose letters are not wide."""


class Word(NamedTuple):
    """An entry of a list, folded and with its runs; whether it must begin and end where a word does."""

    text: str
    begins: bool
    ends: bool
    action: str
    lang: str
    is_digits: bool

    @property
    def key(self) -> str:
        """What is looked for in a text whose runs are squeezed."""
        return squeezed(f"{' ' * self.begins}{self.text}{' ' * self.ends}")

    @property
    def packed(self) -> str:
        """As one text: a hundred thousand objects that refer to others would be a pause of the loop whenever
        the garbage of all is looked for.
        """
        flags = f"{self.begins:d}{self.ends:d}{self.is_digits:d}"
        return f"{self.text}\t{flags}\t{self.action}\t{self.lang}"

    @classmethod
    def unpacked(cls, packed: str) -> Word:
        """The entry of such a text."""
        text, flags, action, lang = packed.split("\t")
        return cls(text, flags[0] == "1", flags[1] == "1", action, lang, flags[2] == "1")

    def pattern(self) -> re.Pattern[str]:
        """What finds it in a folded text: each run as long as its own, or longer."""
        runs = "".join(
            f"{re.escape(run[1])}{{{1 if run[1] == ' ' else len(run[0])},}}"
            for run in _RUNS.finditer(self.text)
        )
        return re.compile(f"{'(?<= )' if self.begins else ''}{runs}{'(?= )' if self.ends else ''}")


class Hit(NamedTuple):
    """Where a text has a word: from one character up to another one."""

    start: int
    end: int
    word: Word


class BadList(ValueError):
    """A line of a list that means nothing: the text says which."""


def words_of(lines: Iterable[str], lang: str, folder: Folder, name: str, action: str) -> Iterator[Word]:
    """The entries of one list; BadList. `action`: for those before the first `[ACTION]`."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("[") and text.endswith("]"):
            action = text[1:-1].strip()
            if action not in ACTIONS[1:]:
                raise BadList(f"{name}:{number}: {action!r} is none of {', '.join(ACTIONS[1:])}")
            continue
        is_allowed = text.startswith("!")
        bare = text.removeprefix("!").strip()
        word = bare.strip("*").strip()
        if len(word) > LONGEST:
            raise BadList(f"{name}:{number}: a word has at most {LONGEST} characters")
        folded = folder.fold(folder.unsigned(word)).strip()
        if not folded:
            raise BadList(f"{name}:{number}: nothing is left of {text!r}")
        yield Word(
            folded,
            not bare.startswith("*") and is_spaced(folded[0]),
            not bare.endswith("*") and is_spaced(folded[-1]),
            "pass" if is_allowed else action,
            lang,
            not any(map(str.isalpha, word)),
        )


def is_spaced(char: str) -> bool:
    """Whether it is of a script that has spaces between words, and no picture."""
    if unicodedata.category(char) == "So" or unicodedata.east_asian_width(char) in "WF":
        return False
    return not any(first <= char <= last for first, last in _UNSPACED)


class Words:
    """All lists, which are never changed: by their keys `alone` has what is one word by itself, `automata`
    the others; packed, one a line.
    """

    def __init__(self, folder: Folder, count: int, alone: Mapping[str, str], automata: Sequence[Any]) -> None:
        self.folder = folder
        self.count = count
        self._finds = [automaton.iter for automaton in automata]
        self._patterns: Lru[Word, re.Pattern[str]] = Lru(PATTERNS)
        self._squeezed = _Lately(squeezed)
        self._known = _Lately(lambda token: alone.get(squeezed(token), CLUE))
        self._alone = alone
        self._ends = {f"{key[:3]}{key[-3:]}" for key in alone}  # nearly all others differ in that
        self._free: dict[str, bool] = {}
        self._letters: dict[str, int] = {}
        self.clean: set[str] = set()
        """Words as they are written of which it is known that nothing is in them: some of `_letters`."""

    def is_clean(self, text: str) -> bool:
        """Whether a text has nothing that is on a list of any language, as is soon found out where its words
        were said lately. False says nothing.
        """
        words = text.split()
        unknown = [*filterfalse(self.clean.__contains__, words)]
        return not self.count or not unknown or self.are_clean(unknown, words)

    def are_clean(self, unknown: Sequence[str], words: Sequence[str]) -> bool:
        """The same of all words of a text as they are written, in XML or not, of which those are `unknown`
        that are not `clean`: they have to be looked at.
        """
        free, letters = self._free, 0
        for word in unknown:
            if free.get(word[:3] + word[-3:]) and PLAIN(word) is not None:
                if word.isalpha():  # what has digits is seldom said again
                    self._remember(word, 0)
                continue
            found = self._letters.get(word)
            if found is None:
                found = self._learn(word)
            if found:
                if found == FOUND:
                    return False
                letters += found
        return letters <= 2 or not self._spells(" ".join(words))

    def _spells(self, text: str) -> bool:
        """Whether anything may be spelled letter by letter."""
        folder = self.folder
        return any(
            reading is None or _SPELLED.search(folder.fold(folder.unsigned(reading))) is not None
            for reading in (text, unescaped(text))
        )

    def _learn(self, word: str) -> int:
        """How many letters stand by themselves in a word as it is written, beside what is no letter; FOUND
        where an entry, or what is a part of one, is in it, or markup.
        """
        if PLAIN(word) is not None and not self._finds and self._look_at(word[:3] + word[-3:]):
            if word.isalpha():
                self._remember(word, 0)
            return 0
        found = self._looked_up(word)
        self._remember(word, found)
        return found

    def _look_at(self, ends: str) -> bool:
        """Whether no entry begins with these three letters and ends with those."""
        folded = "".join(map(self.folder.usual.__getitem__, ends))
        is_free = squeezed(folded[:3]) + squeezed(folded[3:]) == folded and folded not in self._ends
        if len(self._free) >= WRITTEN:
            self._free.clear()
        self._free[ends] = is_free
        return is_free

    def _looked_up(self, word: str) -> int:
        plain = unescaped(word)
        if plain is None or "<" in word:
            return FOUND
        readings = {word, plain, self.folder.unsigned(word), self.folder.unsigned(plain)}
        words = [self.folder.fold(reading).split() for reading in readings]
        if any(map(self._is_listed, words)):
            return FOUND
        return max(list(map(len, some)).count(1) for some in words)

    def _remember(self, word: str, letters: int) -> None:
        if len(word) > SHORT:
            return
        if len(self._letters) >= WRITTEN:
            self.clean.clear()
            self._letters.clear()
        self._letters[word] = letters
        if not letters:
            self.clean.add(word)

    def _is_listed(self, words: Sequence[str]) -> bool:
        """Whether an entry, or what is a part of one, is in these words."""
        keys = [*map(squeezed, words)]
        if any(map(self._alone.__contains__, keys)):
            return True
        key = f" {' '.join(keys)} "
        return any(next(find(key), None) is not None for find in self._finds)

    def hits(self, text: str, lang: str = "") -> list[Hit] | None:
        """What offends in a text: only words of lists of this language and of any ("": of all). None: too
        much.
        """
        if not self.count:
            return []
        folder = self.folder
        folded = folder.fold(text)
        hits: list[Hit] | None = []
        if found := self._found(folded):
            hits = self._placed(text, folded, found, lang)
        if (plain := folder.unsigned(text)) is not text and hits is not None:
            folded = folder.fold(plain)
            if found := self._found(folded):
                more = self._placed(text, folded, found, lang)
                hits = None if more is None else hits + more
        if _SPELLED.search(folded) is not None and hits is not None:
            hits = hits + self._spelled(text, folded, lang)
        return hits

    def _found(self, folded: str) -> set[Word]:
        tokens = folded.split()
        found = {*filter(None, map(self._known.__getitem__, tokens))}
        if self._finds:
            key = f" {' '.join(map(self._squeezed.__getitem__, tokens))} "
            for find in self._finds:
                for _, packed in find(key):
                    if packed != CLUE:
                        found.add(packed)
        return {Word.unpacked(line) for packed in found for line in packed.split("\n")} if found else set()

    def _placed(self, text: str, folded: str, words: Iterable[Word], lang: str) -> list[Hit] | None:
        """Where those words stand that offend in this language."""
        places = None if text.isascii() else self.folder.places(text)
        hits: list[Hit] = []
        allowed: list[tuple[int, int]] = []
        for word in words:
            if lang and word.lang not in (lang, ANY):
                continue
            for match in self._pattern(word).finditer(folded):
                start, end = match.start() - 1, match.end() - 1
                if places is not None:
                    start, end = places[start + 1][0], places[end][1]
                start, end = max(start, 0), min(end, len(text))
                if word.action == "pass":
                    allowed.append((start, end))
                elif word.is_digits or not text[start:end].isdigit():
                    hits.append(Hit(start, end, word))
                if len(hits) + len(allowed) > MOST:
                    return None
        if not allowed:
            return hits
        return [hit for hit in hits if not any(a <= hit.start and hit.end <= b for a, b in allowed)]

    def _spelled(self, text: str, folded: str, lang: str) -> list[Hit]:
        """What is spelled letter by letter: some words within it, or all of it."""
        places = self.folder.places(text)
        hits: list[Hit] = []
        for match in _SPELLED.finditer(folded):
            letters = match[0].replace(" ", "")[:MOST_SPELLED]
            parts = [
                letters[first:last]
                for first in range(len(letters))
                for last in range(first + SPELLED, len(letters) + 1)
            ]
            joined = f" {letters} {' '.join(parts)} "
            start, end = places[match.start() + 1][0], places[match.end() - 1][1]
            for word in self._found(joined):
                is_meant = not lang or word.lang in (lang, ANY)
                if is_meant and word.action != "pass" and self._pattern(word).search(joined):
                    hits.append(Hit(start, end, word))
        return hits

    def _pattern(self, word: Word) -> re.Pattern[str]:
        found = self._patterns.get(word)
        if found is None:
            found = word.pattern()
            self._patterns.put(word, found)
        return found


class _Lately(dict[str, str]):
    """What is made of words that were said lately, for most are said again and again."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, token: str) -> str:
        if len(self) >= TOKENS:
            self.clear()
        made = self._make(token)
        if len(token) <= LONGEST:
            self[token] = made
        return made


def clue_in(key: str) -> str:
    """The longest part of some words that one word has, with the spaces that are beside it: no text has the
    whole without a word that has this.
    """
    parts = key.split(" ")
    last = len(parts) - 1
    spaced = [
        f"{' ' * (number > 0)}{part}{' ' * (number < last)}" for number, part in enumerate(parts) if part
    ]
    return max(spaced, key=len)


async def words_in(
    folder: Folder, lists: Iterable[tuple[str, str, str]], action: str, new: Callable[[], Any]
) -> Words:
    """All lists, each a name, a language and a text, read in slices of the loop's time; BadList. `new` makes
    an automaton, which is filled in a thread.
    """
    alone: dict[str, str] = {}
    within: dict[str, str] = {}
    count, end = 0, perf_counter() + SLICE_SECONDS
    for name, lang, text in lists:
        for word in words_of(text.splitlines(), lang, folder, name, action):
            is_alone = word.begins and word.ends and " " not in word.text
            found, key = (alone, word.key.strip()) if is_alone else (within, word.key)
            found[key] = f"{found[key]}\n{word.packed}" if found.get(key) else word.packed
            if " " in word.text:
                clue = clue_in(word.key)
                is_whole = clue.startswith(" ") and clue.endswith(" ")
                (alone if is_whole else within).setdefault(clue.strip() if is_whole else clue, CLUE)
            count += 1
            if perf_counter() > end:
                await asyncio.sleep(0)
                end = perf_counter() + SLICE_SECONDS
    loop, keys, automata = asyncio.get_running_loop(), list(within), list[Any]()
    for start in range(0, len(keys), KEYS):
        some = {key: within[key] for key in keys[start : start + KEYS]}
        automata.append(await loop.run_in_executor(None, partial(automaton_of, new, some)))
    return Words(folder, count, alone, automata)


def automaton_of(new: Callable[[], Any], entries: Mapping[str, str]) -> Any:
    """One that finds these."""
    made = new()
    for key, packed in entries.items():
        made.add_word(key, packed)
    made.make_automaton()
    return made
