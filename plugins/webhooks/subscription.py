"""One subscription: who is told of which events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from xmppd.plugin import Event, Value

from .conditions import Condition, condition
from .signing import Key, keys_of, text_of

KIND: Final = "all"
ACTIVE: Final = ""
PAUSED: Final = "paused"
GONE: Final = "gone"
MESSAGES: Final = "message.routed"
SHOWN: Final = 60
ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Subscription:
    """`id` tells it from a later one of its name. It has the events of these kinds (patterns), of accounts
    whose address begins with one of `accounts` or is on one of `domains` (none: of all), and for which all
    conditions of `where` hold; message bodies only with `bodies`. `state`: ACTIVE, PAUSED (it collects), or
    GONE (it does not).
    """

    name: str
    id: str
    url: str
    events: tuple[str, ...]
    accounts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    bodies: bool = False
    keys: tuple[Key, ...] = ()
    state: str = ACTIVE
    created: float = 0.0
    version: int = 1

    @property
    def collects(self) -> bool:
        """Whether events are kept for it."""
        return self.state != GONE

    def is_about(self, account: str) -> bool:
        """Whether events of this account are among its own; those of no account are."""
        if not account or not (self.accounts or self.domains):
            return True
        return account.startswith(self.accounts) or account.rpartition("@")[2] in self.domains

    def text(self, event: Event) -> str | None:
        """The event as it is delivered; None where it is not."""
        if not self.is_about(event.account):
            return None
        whole = event.as_json()
        if not self.bodies and event.kind == MESSAGES:
            whole["data"] = {**event.data, "body": None}
        if self.where and not all(one.holds(whole) for one in self.where):
            return None
        return ENCODER.encode(whole)

    def row(self) -> dict[str, Value]:
        """As it is kept."""
        return {
            "kind": KIND,
            "name": self.name,
            "id": self.id,
            "url": self.url,
            "events": json.dumps(self.events),
            "accounts": json.dumps(self.accounts),
            "domains": json.dumps(self.domains),
            "conditions": json.dumps([one.text for one in self.where]),
            "bodies": self.bodies,
            "secrets": text_of(self.keys),
            "state": self.state,
            "created": self.created,
            "version": self.version,
        }

    def shown(self) -> dict[str, Any]:
        """What operators see: nothing secret, of keys their names only, of the URL no query."""
        return {
            "name": self.name,
            "state": self.state or "active",
            "url": shown_url(self.url),
            "events": " ".join(self.events),
            "accounts": " ".join(self.accounts),
            "domains": " ".join(self.domains),
            "where": " ".join(one.text for one in self.where),
            "bodies": self.bodies,
            "keys": " ".join(key.id for key in self.keys),
        }

    def changed(self, **columns: Any) -> Subscription:
        """The next version."""
        return replace(self, version=self.version + 1, **columns)


def shown_url(url: str) -> str:
    """A URL without what may be secret in its query."""
    parts = urlsplit(url)
    return parts._replace(query="...").geturl() if parts.query else url


def of_row(row: Mapping[str, Any]) -> Subscription:
    """What `Subscription.row` wrote."""
    listed: Mapping[str, Sequence[str]] = {
        name: json.loads(row[name]) for name in ("events", "accounts", "domains", "conditions")
    }
    return Subscription(
        row["name"],
        row["id"],
        row["url"],
        tuple(listed["events"]),
        tuple(listed["accounts"]),
        tuple(listed["domains"]),
        tuple(map(condition, listed["conditions"])),
        row["bodies"],
        keys_of(row["secrets"]),
        row["state"],
        row["created"],
        row["version"],
    )
