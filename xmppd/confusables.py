"""What looks alike: skeletons of texts by UTS 39, from the table beside this file."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_suffix(".txt")
"""On each line a prototype, `<`, and the characters that it stands for; `scripts/confusables` makes it."""

_IGNORED: Final = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""Default_Ignorable_Code_Point: what is not seen."""


def skeleton(text: str) -> str:
    """The skeleton of a text (UTS 39 section 4): two texts that look alike have the same. It is to be
    compared and not to be shown, and knows nothing of case: fold that before.
    """
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFD", decomposed.translate(_prototypes()))


@cache
def _prototypes() -> dict[int, str]:
    """Read once, when it is asked for first: 6,000 characters, in some ms."""
    found: dict[int, str] = {}
    for line in TABLE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            prototype, _, sources = line.partition("<")
            text = "".join(chr(int(code, 16)) for code in prototype.split())
            found.update(dict.fromkeys((int(code, 16) for code in sources.split()), text))
    for first, last in _IGNORED:
        found.update(dict.fromkeys(range(first, last + 1), ""))
    return found
