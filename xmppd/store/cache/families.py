"""All that stands in Redis behind `cache.prefix`, and whom it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FAMILIES: Final[Mapping[str, str]] = {
    "roster": "account",
    "lease": "account",
    "write": "account",
    "flush": "account",
    "rename": "account",
    "nodes": "",
    "secret": "",
    "duty": "",
}
"""The first word of each key, and what stands behind it: the bare JID of a person, or of nobody ("").
`roster`, `lease` and `write` are deleted with the account, `flush` and `rename` (locks) end by themselves.
Channels (`changes`, `trunk`) keep nothing.
"""


def family_of(key: str, prefix: str) -> str:
    """The family of a key; "" for one that is in no family."""
    if not key.startswith(f"{prefix}:"):
        return ""
    name = key[len(prefix) + 1 :].partition(":")[0]
    return name if name in FAMILIES else ""
