"""Names that players show: `name#tag`, what may be one, and when two are the same."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from typing import Final

from xmppd.plugin import skeleton

MOST_TEXT: Final = 200
"""Characters that are looked at; no name is that long."""
MARKS: Final = 2
"""So many combining marks may follow one another."""
PUNCTUATION: Final = frozenset(" '-._")
LETTERS: Final = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Mn", "Mc"))
TAG_DIGITS: Final = 4
ANY: Final = "*"
"""In place of a tag: whichever it is."""


class BadName(ValueError):
    """What cannot be a name, with the reason."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many characters a name and a tag have."""

    least: int = 3
    most: int = 16
    least_tag: int = 2
    most_tag: int = 5


@dataclass(frozen=True, slots=True)
class Name:
    """One name with its tag, in normal form."""

    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.name}#{self.tag}"

    @property
    def keys(self) -> tuple[str, ...]:
        """See `keys_of`."""
        return keys_of(str(self))

    @property
    def any_keys(self) -> tuple[str, ...]:
        """The same of the name with whichever tag."""
        return keys_of(f"{self.name}#{ANY}")


def keys_of(text: str) -> tuple[str, ...]:
    """What a name is told from others by: two are the same if they have one of these in common. One is what
    it looks like in small letters, so case does not count. The other is what it looks like as it is written:
    a capital i is like a small l, and a Cyrillic capital like a Latin one whose small letters differ.
    """
    plain = unicodedata.normalize("NFKC", text)
    if not plain:
        return ()
    small = unicodedata.normalize("NFKC", plain.casefold())
    return tuple(sorted({skeleton(small).casefold(), skeleton(plain).casefold()}))


def read(text: str) -> Name | None:
    """A text that has the form of a name with a tag, whatever the rules; None for others."""
    if len(text) > MOST_TEXT or "#" not in text:
        return None
    name, _, tag = unicodedata.normalize("NFKC", text).rpartition("#")
    name, tag = " ".join(name.split()), tag.strip()
    return Name(name, tag) if name and tag and "#" not in name else None


def checked(text: str, bounds: Bounds) -> Name:
    """A name that may be had, by its form; BadName. Without a tag it is given one."""
    if len(text) > MOST_TEXT:
        raise BadName(f"A name has at most {bounds.most} characters.")
    name = read(text if "#" in text else f"{text}#{made_up()}")
    if name is None:
        raise BadName("A name is written name#tag.")
    if not bounds.least <= len(name.name) <= bounds.most:
        raise BadName(f"A name has {bounds.least} to {bounds.most} characters.")
    if not bounds.least_tag <= len(name.tag) <= bounds.most_tag:
        raise BadName(f"A tag has {bounds.least_tag} to {bounds.most_tag} characters.")
    if not (name.tag.isascii() and name.tag.isalnum()):
        raise BadName("A tag is made of the letters A to Z and digits.")
    check_characters(name.name)
    return name


def check_characters(name: str) -> None:
    """BadName unless it is made of letters and digits of whatever script, and a few signs between them."""
    run = 0
    for place, char in enumerate(name):
        kind = unicodedata.category(char)
        if kind not in LETTERS and char not in PUNCTUATION:
            raise BadName("A name is made of letters, digits, and spaces, ' . - and _ between them.")
        run = run + 1 if kind[0] == "M" else 0
        if run > MARKS or (run and not place):
            raise BadName("There are too many marks on a letter.")
    if not name[0].isalnum() or (name[-1] in PUNCTUATION):
        raise BadName("A name begins and ends with a letter or a digit.")


def made_up() -> str:
    """A tag for who gave none."""
    return "".join(secrets.choice("0123456789") for _ in range(TAG_DIGITS))
