"""What becomes of a text: lists of words, then regular expressions, then whoever is asked by HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from .patterns import Pattern, TooLong, found
from .words import ACTIONS, Words

RANK: Final = {action: rank for rank, action in enumerate(ACTIONS)}
MASK: Final = "*"


class Judgement(NamedTuple):
    """What is done about a text: `action` is one of "pass", "flag", "mask", "shadow" and "refuse". `text` is
    what may be shown of it, `why` by which part it was found.
    """

    action: str
    text: str
    why: str


class Chain:
    """Lists and expressions that are replaced as a whole. `seconds` of the processor for expressions, and
    `slow` what is done about a text that takes longer; more than `most` characters are refused.
    """

    def __init__(
        self,
        words: Words,
        patterns: Sequence[Pattern],
        seconds: float,
        slow: str,
        most: int,
        by_language: bool,
    ) -> None:
        self.words = words
        self.patterns = patterns
        self._seconds = seconds
        self._slow = slow
        self._most = most
        self._by_language = by_language
        self.timeouts = 0

    def passes(self, text: str) -> bool:
        """Whether it is soon found out that `look` says nothing of a text."""
        return len(text) <= self._most and not self.patterns and self.words.is_clean(text)

    def look(self, text: str, lang: str = "") -> Judgement | None:
        """What lists and expressions say of a text; None: nothing."""
        if len(text) > self._most:
            return Judgement("refuse", text, "length")
        language = lang.lower().partition("-")[0] if self._by_language else ""
        hits = self.words.hits(text, language)
        if not hits and not self.patterns:
            return None if hits is not None else Judgement("refuse", text, "words")
        if hits is None:
            return Judgement("refuse", text, "words")
        action, why, spans = "pass", "", [(hit.start, hit.end) for hit in hits if hit.word.action == "mask"]
        for hit in hits:
            if RANK[hit.word.action] > RANK[action]:
                action, why = hit.word.action, f"words {hit.word.lang}"
        if self.patterns and action != "refuse":
            try:
                places = found(self.patterns, text, self._seconds)
            except TooLong:
                self.timeouts += 1
                places = [(0, len(text), self._slow)]
            for start, end, done in places:
                if done == "mask":
                    spans.append((start, end))
                if RANK[done] > RANK[action]:
                    action, why = done, "patterns"
        if action == "pass":
            return None
        return Judgement(action, masked(text, spans) if spans else text, why)


def masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with stars in the place of what stands there, but for spaces."""
    chars = list(text)
    for start, end in spans:
        for index in range(start, end):
            if not chars[index].isspace():
                chars[index] = MASK
    return "".join(chars)


def worse(one: Judgement, other: Judgement) -> Judgement:
    """The one that does more."""
    return one if RANK[one.action] >= RANK[other.action] else other


Ask = Callable[[str, str, str, str], Awaitable[Judgement | None]]
