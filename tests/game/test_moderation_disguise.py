# ruff: noqa: RUF001 - texts that look alike are what this is about
"""The filter of plugin moderation finds what a straightforward one finds, which takes its time."""

import asyncio
import re
import unicodedata
from itertools import groupby
from typing import NamedTuple

import ahocorasick
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugins.game.moderation.chain import Chain, masked
from plugins.game.moderation.folding import LEET, Folder
from plugins.game.moderation.words import ANY, MOST, MOST_SPELLED, SPELLED, Word, Words, words_in, words_of


class Lists(NamedTuple):
    folder: Folder
    leet: dict[str, str]
    entries: list[Word]
    words: Words


def lists(leet: dict[str, str], **texts: str) -> Lists:
    folder = Folder(leet)
    entries = [
        word for lang, text in texts.items() for word in words_of(text.split(","), lang, folder, lang, "mask")
    ]
    named = [(lang, lang, text.replace(",", "\n")) for lang, text in texts.items()]
    return Lists(folder, leet, entries, asyncio.run(words_in(folder, named, "mask", ahocorasick.Automaton)))


ALL = (
    lists(dict(LEET), en="fuck,ass,*shit*,88,darn fool,[refuse],kill yourself,суккуб,你妈,🖕,!class ass"),
    lists(dict(LEET), en="fuck,ass,as,c00l,darnword,суккуб,88"),  # nothing but words by themselves
    lists(
        dict(LEET), en="*as*,as,ass,*ss,ss*,a,*a,b*,*aba*,!abba,!*bb*,aab,*abb", de="*ab*,ba,!ab", any="*8*"
    ),
    lists({"1": "l", "(": "c", "0": "o", "_": "i"}, en="fuck,c00l,*c(l*,__x,of a gun*,*bad dog*,*os so*"),
)
PIECES = (
    "f u c k s a b d ss ck fu fuck FUCK fuuck a$ $$ @ss ! (ool _i 0 8 88 0x88 l класс сук куб "
    "你 妈 darn fool bad dog gun of kill yourself class sh it aba bab abb aab "
    "\u200b \u0301 \u0640 \ufe0f я ｆ 𝖋 ﬁ ﷺ 🇫 🅺 🖕 é ß … — \u2003 \x85"
).split(" ")
TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(("", "", " ", "  ", "."))), max_size=24).map(
        lambda parts: "".join(piece + space for piece, space in parts)
    ),
    st.text(alphabet="ab s", max_size=60),
)


def unsigned(text: str, leet: dict[str, str]) -> str:
    signs = {sign: letter for sign, letter in leet.items() if not sign.isalnum()}
    shown = ""
    for is_sign, run in ((is_sign, "".join(run)) for is_sign, run in groupby(text, signs.__contains__)):
        before, after = shown[-1:], text[len(shown) + len(run) : len(shown) + len(run) + 1]
        count = len(run) if after.isalnum() else len(run) - len(run.lstrip("".join(signs).replace("!", "")))
        if is_sign and (after.isalnum() or before.isalnum()):
            run = "".join(signs[sign] for sign in run[:count]) + run[count:]
        shown += run
    return shown


def straightforward(of: Lists, text: str, lang: str) -> list[tuple[int, int, Word]] | None:
    """Each entry looked for by an expression of its own in the text folded character by character."""
    found: list[tuple[int, int, Word]] = []
    readings = list(dict.fromkeys((text, unsigned(text, of.leet))))
    for reading in readings:
        places = [(0, 0)]
        for index, char in enumerate(reading):
            places += [(index, index + 1)] * len(of.folder.char(char))
        folded = f" {''.join(map(of.folder.char, reading))} "
        hits, allowed = [], []
        for word in dict.fromkeys(of.entries):
            if lang and word.lang not in (lang, ANY):
                continue
            for match in pattern(word).finditer(folded):
                start, end = places[match.start()][0], places[match.end() - 1][1]
                if word.action == "pass":
                    allowed.append((start, end))
                elif word.is_digits or not text[start:end].isdigit():
                    hits.append((start, end, word))
        if len(hits) + len(allowed) > MOST:
            return None
        found += [hit for hit in hits if not any(a <= hit[0] and hit[1] <= b for a, b in allowed)]
    for match in re.finditer(r" \S \S \S(?: \S)*(?= )", folded):
        letters = match[0].replace(" ", "")[:MOST_SPELLED]
        parts = {
            letters[first:last]
            for first in range(len(letters))
            for last in range(first + 1, len(letters) + 1)
        }
        parts = {f" {part} " for part in parts if len(part) >= SPELLED or part == letters}
        for word in dict.fromkeys(of.entries):
            is_meant = word.action != "pass" and (not lang or word.lang in (lang, ANY))
            if is_meant and " " not in word.text and any(map(pattern(word).search, parts)):
                found.append((places[match.start() + 1][0], places[match.end() - 1][1], word))
    return sorted(found)


def pattern(word: Word) -> re.Pattern[str]:
    runs = ((char, 1 if char == " " else len("".join(run))) for char, run in groupby(word.text))
    text = "".join(f"{re.escape(char)}{{{count},}}" for char, count in runs)
    return re.compile(f"{'(?<= )' if word.begins else ''}{text}{'(?= )' if word.ends else ''}")


@example("ababa abab ab", ALL[2], "")
@example("x a s q z", ALL[1], "")
@example("x a s s q z f u c k", ALL[1], "")
@example("s o s o s", ALL[3], "")
@example("a s s s", ALL[1], "en")
@example("kill  yourself, k i l l y o u r s e l f", ALL[0], "")
@example("d\u200b4\u0301rnw0rd th\u0456s ﷺ суккуб", ALL[1], "")
@given(TEXTS, st.sampled_from(ALL), st.sampled_from(("", "en", "de")))
def test_what_is_found_is_what_a_straightforward_filter_finds(text: str, of: Lists, lang: str) -> None:
    found, expected = of.words.hits(text, lang), straightforward(of, text, lang)
    assert (None if found is None else sorted(found)) == expected
    if found is not None and expected is not None:
        stars = masked(text, [hit[:2] for hit in expected])
        judged = Chain(of.words, (), 0.0, "pass", 5_000, True).look(text, lang)
        if judged is not None and all(hit[2].action == "mask" for hit in expected):
            assert judged.text == stars
    assert not expected or not of.words.is_clean(text)


@given(TEXTS, st.sampled_from(ALL))
def test_letters_stand_where_signs_do(text: str, of: Lists) -> None:
    assert of.folder.unsigned(text) == unsigned(text, of.leet)


@pytest.mark.parametrize("plane", [0, 1, 2, 14])
def test_characters_are_folded_alike_one_by_one_and_together(plane: int) -> None:
    folder = Folder()
    text = "".join(map(chr, range(plane << 16, plane + 1 << 16)))
    folded = [folder.char(char) for char in text]
    assert folder.fold(text) == f" {''.join(folded)} "
    places = [(0, 0)]
    for index, shown in enumerate(folded):
        places += [(index, index + 1)] * len(shown)
    assert [*folder.places(text)] == [*places, (len(text), len(text))]
    for char, shown in zip(text, folded, strict=True):
        if unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs"):
            assert shown == " "
