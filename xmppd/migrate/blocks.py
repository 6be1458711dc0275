"""Privacy lists (XEP-0016) as plain data, and what of them can live on as blocks (XEP-0191)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.migrate.record import Losses

KINDS: Final = ("iq", "message", "presence-in", "presence-out")
"""What an item of a privacy list may be about."""

TYPES: Final[Mapping[str, str]] = {"j": "jid", "g": "group", "s": "subscription", "n": "", "none": ""}
"""How servers shorten the types of items -> the words of XEP-0016."""

ACTIONS: Final[Mapping[str, str]] = {"a": "allow", "d": "deny"}


@dataclass(frozen=True, slots=True)
class PrivacyItem:
    """One item: `action` (allow, deny), `type` (jid, group, subscription, "": everybody) with its `value`,
    and the `kinds` it is about, where none means all four. By `order`, the first that matches applies.
    """

    action: str
    order: int = 0
    type: str = ""
    value: str = ""
    kinds: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether it is about all that a contact may send or get."""
        return not self.kinds or self.kinds.issuperset(KINDS)

    @property
    def is_block(self) -> bool:
        """Whether it is what a block of XEP-0191 says."""
        return self.is_whole and self.action == "deny" and self.type == "jid" and bool(self.value)

    @property
    def is_open(self) -> bool:
        """Whether it allows everybody everything."""
        return self.is_whole and self.action == "allow" and not self.type

    def __str__(self) -> str:
        who = f" {self.type} {self.value}" if self.type else ""
        return f"{self.action}{who}" + ("" if self.is_whole else f" ({', '.join(sorted(self.kinds))})")


def kinds_of(iq: bool, message: bool, presence_in: bool, presence_out: bool) -> frozenset[str]:
    """The kinds of an item of which a source keeps one flag each."""
    return frozenset(
        kind for kind, is_set in zip(KINDS, (iq, message, presence_in, presence_out), strict=True) if is_set
    )


def blocks_of_privacy(
    lists: Mapping[str, Sequence[PrivacyItem]], default: str | None, account: str, losses: Losses
) -> list[str]:
    """The addresses that the default list denies everything; each other item is a loss `privacy-list`.

    What stands behind an item that allows everybody everything never applies; with that item nothing is lost,
    for whoever no item matches may do all. The list in which ejabberd keeps blocks (`Blocked contacts`,
    default, all of order 0) is blocks alone.
    """
    blocks: dict[str, None] = {}
    for name, items in lists.items():
        is_dead = name != default
        for item in sorted(items, key=lambda item: item.order):
            if not is_dead and item.is_block:
                blocks[item.value] = None
            elif not is_dead and item.is_open:
                is_dead = True
            else:
                losses.add("privacy-list", account, f"{name}: {item}")
    return list(blocks)


def privacy_of(query: Element) -> tuple[dict[str, list[PrivacyItem]], str | None]:
    """The lists of a `<query/>` of privacy with all items, and the name of the default one."""
    lists: dict[str, list[PrivacyItem]] = {}
    for tree in query.iterfind(f"{{{ns.PRIVACY}}}list"):
        lists.setdefault(tree.get("name", ""), []).extend(items_of(tree))
    default = query.find(f"{{{ns.PRIVACY}}}default")
    return lists, default.get("name") if default is not None else None


def items_of(tree: Element) -> list[PrivacyItem]:
    """The items of a `<list/>` of privacy (its own namespace or none)."""
    return [
        PrivacyItem(
            child.get("action", "deny").strip(),
            number(child.get("order")),
            child.get("type", "").strip(),
            child.get("value", ""),
            frozenset(kind for kind in map(_local, child) if kind in KINDS),
        )
        for child in tree
        if _local(child) == "item"
    ]


def blocked_of(query: Element | Iterable[Element]) -> list[str]:
    """The addresses of a `<blocklist/>` (XEP-0191)."""
    return list(dict.fromkeys(child.get("jid", "") for child in query if child.get("jid")))


def number(text: object) -> int:
    """The order that a source gives an item; 0 where that is none."""
    try:
        return int(float(str(text)))
    except (ValueError, OverflowError):
        return 0


def _local(tree: Element) -> str:
    return tree.tag.rpartition("}")[2]
