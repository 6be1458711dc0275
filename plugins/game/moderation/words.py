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
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress, count
from operator import le, length_hint, ne, sub
from time import perf_counter
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .folding import Folder, Places, squeezed
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
TOKENS: Final = 20_000
"""Words of texts, and entries, that are remembered with what is made of them."""
PACKED: Final = 10_000
"""Characters of entries that are remembered so."""
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

    @property
    def runs(self) -> list[int]:
        """How long each run of it is at least where it is found."""
        return [1 if run[1] == " " else len(run[0]) for run in _RUNS.finditer(self.text)]


class Entry(NamedTuple):
    """An entry at hand, and how long its runs are."""

    word: Word
    runs: list[int]

    def is_at(self, starts: Sequence[int], first: int) -> bool:
        """Whether it stands where its key does: the runs of a text from the `first` one on, which begin at
        these `starts`, are as long as its own, or longer.
        """
        ends = starts[first + 1 : first + 1 + len(self.runs)]
        return all(map(le, self.runs, map(sub, ends, starts[first:])))


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
    the others; packed, one a line. `sides`: whether these must begin where a word does, and end so.
    """

    def __init__(
        self,
        folder: Folder,
        count: int,
        alone: Mapping[str, str],
        automata: Sequence[Any],
        sides: Container[tuple[bool, bool]],
    ) -> None:
        self.folder = folder
        self.count = count
        self._finds = [automaton.iter for automaton in automata]
        self._has_beginnings = (True, False) in sides
        self._has_ends = (False, True) in sides
        self._squeezed = _Lately(squeezed)
        self._known = _Lately(lambda token: alone.get(squeezed(token), CLUE))
        self._entries = _Lately(entries_of, PACKED)
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
        left = iter(words)
        return not self.count or self.clean.issuperset(left) or self.are_clean(words, left)

    def are_clean(self, words: Sequence[str], left: Iterator[str]) -> bool:
        """The same of all words of a text as they are written, in XML or not, of which those are `left` that
        stand behind the first one that is not `clean`.
        """
        free, letters, is_over = self._free, 0, self.clean.issuperset
        while True:
            word = words[~length_hint(left)]
            if free.get(word[:3] + word[-3:]) and word.isalnum() and word.isascii() and len(word) >= 6:
                if word.isalpha():  # what has digits is seldom said again
                    self._remember(word, 0)
            else:
                found = self._letters.get(word)
                if found is None:
                    found = self._learn(word)
                if found == FOUND:
                    return False
                letters += found
            if is_over(left):
                break
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
        hits = self._placed(text, folded, lang)
        if (plain := folder.unsigned(text)) is not text and hits is not None:
            folded = folder.fold(plain)
            more = self._placed(text, folded, lang)
            hits = None if more is None else hits + more
        if hits is not None and _SPELLED.search(folded) is not None:
            hits += self._spelled(text, folded, lang)
        return hits

    def _placed(self, text: str, folded: str, lang: str) -> list[Hit] | None:
        """Where words stand that offend in this language."""
        hits: list[Hit] = []
        allowed: list[tuple[int, int]] = []
        places: Places | None = None
        for start, end, word in self._found(folded):
            if lang and word.lang not in (lang, ANY):
                continue
            start, end = start - 1, end - 1
            if not text.isascii():
                places = places or self.folder.places(text)
                start, end = places[start + 1][0], places[end][1]
            if word.action == "pass":
                allowed.append((start, end))
            elif word.is_digits or not text[start:end].isdigit():
                hits.append(Hit(start, end, word))
            if len(hits) + len(allowed) > MOST:
                return None
        if not allowed:
            return hits
        return [hit for hit in hits if not any(a <= hit.start and hit.end <= b for a, b in allowed)]

    def _found(self, folded: str) -> Iterator[tuple[int, int, Word]]:
        """Where in a folded text entries stand."""
        tokens = folded.split()
        if any(map(self._known.__getitem__, tokens)):
            yield from self._standing_alone(folded, tokens)
        if self._finds:
            key = f" {' '.join(map(self._squeezed.__getitem__, tokens))} "
            found = [found for find in self._finds for found in find(key) if found[1] != CLUE]
            if found:
                yield from self._standing_within(folded, key, found)

    def _standing_alone(self, folded: str, tokens: Sequence[str]) -> Iterator[tuple[int, int, Word]]:
        """Those that are one word by themselves."""
        end = 0
        for token in tokens:
            start = folded.index(token, end)
            end = start + len(token)
            if packed := self._known[token]:
                for entry in self._entries[packed]:
                    if entry.word.text == token or entry.is_at(run_starts(token), 0):
                        yield start, end, entry.word

    def _standing_within(
        self, folded: str, key: str, found: Iterable[tuple[int, str]]
    ) -> Iterator[tuple[int, int, Word]]:
        """The others, of which some were found in the key of the text, each with its last character: none
        overlaps with itself.
        """
        starts = range(len(key) + 1) if len(key) == len(folded) else run_starts(folded)
        over: dict[Word, int] = {}
        for last, packed in found:
            for entry in self._entries[packed]:
                word, runs = entry.word, len(entry.runs)
                first = last + 1 - word.ends - runs
                start, end = starts[first], starts[first + runs]
                if start >= over.get(word, 0) and entry.is_at(starts, first):
                    over[word] = end
                    yield start, end, word

    def _spelled(self, text: str, folded: str, lang: str) -> list[Hit]:
        """What is spelled letter by letter: some words within it, or all of it."""
        places = None if text.isascii() else self.folder.places(text)
        hits: list[Hit] = []
        for match in _SPELLED.finditer(folded):
            start, end = match.start(), match.end() - 1
            if places is not None:
                start, end = places[start + 1][0], places[end][1]
            words = self._spelled_in(match[0].replace(" ", "")[:MOST_SPELLED])
            meant = [word for word in words if not lang or word.lang in (lang, ANY)]
            hits += [Hit(start, end, word) for word in meant if word.action != "pass"]
        return hits

    def _spelled_in(self, letters: str) -> set[Word]:
        """The entries that these letters are, or four or more of them that are beside each other; one that
        must not begin where a word does, or end so, is within them, or at their end, or at their beginning.
        """
        starts, key, least = run_starts(letters), squeezed(letters), min(SPELLED, len(letters))
        alone = {
            (first, packed)
            for first in range(len(key))
            for last in range(bisect_left(starts, starts[first] + least), len(key) + 1)
            if (packed := self._alone.get(key[first:last]))
        }
        found = {
            entry.word
            for first, packed in alone
            for entry in self._entries[packed]
            if entry.is_at(starts, first)
        }
        if self._finds:
            heads = [letters[:last] for last in range(least, len(letters))] if self._has_ends else []
            firsts = len(letters) + 1 - least if self._has_beginnings else 1
            joined = f" {' '.join([letters[first:] for first in range(firsts)] + heads)} "
            key = squeezed(joined) if len(key) < len(letters) else joined
            ends = [found for find in self._finds for found in find(key) if found[1] != CLUE]
            within = self._standing_within(joined, key, ends)
            found.update(word for *_, word in within if " " not in word.text)
        return found


T = TypeVar("T")


class _Lately(dict[str, T], Generic[T]):
    """What is made of words that were said lately, for most are said again and again."""

    def __init__(self, make: Callable[[str], T], longest: int = LONGEST) -> None:
        super().__init__()
        self._make = make
        self._longest = longest

    def __missing__(self, token: str) -> T:
        if len(self) >= TOKENS:
            self.clear()
        made = self._make(token)
        if len(token) <= self._longest:
            self[token] = made
        return made


def entries_of(packed: str) -> list[Entry]:
    """Those of one key, each once."""
    words = map(Word.unpacked, dict.fromkeys(packed.split("\n")))
    return [Entry(word, word.runs) for word in words]


def run_starts(text: str) -> list[int]:
    """Where each run of one character begins, and where the text, which is not empty, ends."""
    return [0, *compress(count(1), map(ne, text, text[1:])), len(text)]


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
    an automaton, which is filled in a thread, as is all that is made of all of them.
    """
    alone: dict[str, str] = {}
    within: dict[str, str] = {}
    sides: set[tuple[bool, bool]] = set()
    count, end = 0, perf_counter() + SLICE_SECONDS
    for name, lang, text in lists:
        for word in words_of(text.splitlines(), lang, folder, name, action):
            is_alone = word.begins and word.ends and " " not in word.text
            sides.add((word.begins, word.ends))
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
    return await loop.run_in_executor(None, Words, folder, count, alone, automata, sides)


def automaton_of(new: Callable[[], Any], entries: Mapping[str, str]) -> Any:
    """One that finds these."""
    made = new()
    for key, packed in entries.items():
        made.add_word(key, packed)
    made.make_automaton()
    return made
