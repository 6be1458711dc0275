"""Texts as they are compared with lists of words: what looks or reads alike is written alike. Compatibility
forms (NFKC), case and accents go, as does what nobody sees; look-alikes (UTS 39) become letters of Latin
where they are like such, digits that stand for letters become those, and all that is between words a space.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from xmppd.plugin import skeleton

LEET: Final = {
    "0": "o",
    "1": "i",
    "!": "i",
    "|": "i",
    "3": "e",
    "4": "a",
    "@": "a",
    "5": "s",
    "$": "s",
    "7": "t",
}
"""What stands for letters unless the configuration says otherwise."""
ALIKE: Final = {"l": "i"}
"""`l`, `I` and `1` cannot be told apart."""
# ruff: noqa: RUF001
MORE: Final = {
    "в": "b",
    "м": "m",
    "н": "h",
    "к": "k",
    "т": "t",
    "ь": "b",
    "г": "r",
    "п": "n",
    "я": "r",
    "и": "n",
    "ø": "o",
    "ł": "i",
    "đ": "d",
    "ħ": "h",
    "ŧ": "t",
    "υ": "u",
}
"""Small letters that look like large ones of Latin, or like others with a stroke; look-alikes in the strict
sense are none.
"""
BOXED: Final = ((0x1F1E6, 26), (0x1F150, 26), (0x1F170, 26))
"""Letters in boxes and circles that Unicode does not decompose: flags, white on black."""
UNSEEN: Final = frozenset("\u034f\u0640\u115f\u1160\u3164\uffa0\u2800\u180b\u180c\u180d\u180f")
"""What shows nothing, or makes a letter longer, and is of another category."""
OTHER_LETTERS: Final = (0, 7, 8, 9)
"""Combining classes of marks that make another letter: vowels, nuktas, voicing marks, viramas."""
NOTHING: Final = frozenset(("Cc", "Cn", "Co", "Cs"))
"""Categories of what is no character, or nobody knows which."""
REMEMBERED: Final = 40_000
"""Of so many characters it is remembered what they are folded to."""

_AGAIN: Final = re.compile(r"(.)(?=\1)", re.DOTALL)


class Folder:
    """Folds by one table of what stands for letters, of single characters of ASCII. `usual`: what letters and
    digits of ASCII are folded to.
    """

    def __init__(self, leet: Mapping[str, str] = LEET) -> None:
        self._letters = {**ALIKE, **{sign: letter for sign, letter in leet.items() if sign.isalnum()}}
        self._signs = {sign: letter for sign, letter in leet.items() if not sign.isalnum()}
        listed = "".join(map(re.escape, self._signs))
        behind = listed.replace("!", "")
        before = f"[{listed}]*(?=[^\\W_])"
        either = f"{before}|(?<=[^\\W_][{behind}])[{behind}]*" if behind else before
        self._stands = re.compile(f"[{listed}](?:{either})") if listed else None
        self._ascii = bytes(ord(self.char(chr(code))) if code < 128 else code for code in range(256))
        self._table = _Table(self)
        self._widths = _Widths(self)
        self.usual = {chr(code): self.char(chr(code)) for code in range(128) if chr(code).isalnum()}

    def fold(self, text: str) -> str:
        """The text with a space before and behind it."""
        if text.isascii():
            return f" {text.encode().translate(self._ascii).decode()} "
        return f" {text.translate(self._table)} "

    def unsigned(self, text: str) -> str:
        """The text with letters in the place of signs that stand for some, where a letter or digit follows,
        or is before one that ends no sentence; the text itself where there are none.
        """
        if self._stands is None or self._stands.search(text) is None:
            return text
        return self._stands.sub(lambda found: "".join(map(self._signs.__getitem__, found[0])), text)

    def places(self, text: str) -> Places:
        """Where in the text each character of what it is folded to comes from."""
        return Places(map(self._widths.__getitem__, text))

    def char(self, char: str) -> str:
        """What one character is folded to: "" for one that nobody sees."""
        category = unicodedata.category(char)
        if category in NOTHING:
            return " "
        if category == "So":
            char = unboxed(char)
        lower = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", char).casefold()).casefold()
        return "".join(map(self._one, lower))

    def _one(self, char: str) -> str:
        category = unicodedata.category(char)
        if category in ("Cf", "Me") or char in UNSEEN:
            return ""
        if category == "Mn" and (unicodedata.combining(char) not in OTHER_LETTERS or is_variation(char)):
            return ""
        if category[0] in "PZC" or category in ("Sm", "Sc", "Sk"):
            return " "
        if category == "Nd":
            char = str(unicodedata.decimal(char))
        if not char.isascii():
            char = MORE.get(char) or skeleton(char).lower() or char
        return "".join(self._letters.get(one, one) for one in char)


def unboxed(char: str) -> str:
    """The letter that is in a box."""
    code = ord(char)
    for first, count in BOXED:
        if first <= code < first + count:
            return chr(code - first + ord("a"))
    return char


def is_variation(char: str) -> bool:
    """Whether it only says how the one before it looks."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def squeezed(folded: str) -> str:
    """A run of one character as one."""
    return _AGAIN.sub("", folded)


class _Table(dict[int, int | str]):
    """For `str.translate`: filled as characters come."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, code: int) -> int | str:
        folded = self._folder.char(chr(code))
        if len(self) >= REMEMBERED:
            self.clear()
        self[code] = made = ord(folded) if len(folded) == 1 else folded
        return made


class _Widths(dict[str, int]):
    """How many characters each is folded to: filled as they come."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, char: str) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        self[char] = width = len(self._folder.char(char))
        return width


class Places:
    """Where the characters of a folded text, with the spaces around it, come from: each from one character of
    the text up to another one. `widths`: how many each of that became.
    """

    def __init__(self, widths: Iterable[int]) -> None:
        self._ends = [*accumulate(widths)]
        self._count = 2 + (self._ends[-1] if self._ends else 0)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return map(self.__getitem__, range(self._count))

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not index:
            return 0, 0
        at = bisect_right(self._ends, index - 1)
        return at, min(at + 1, len(self._ends))
