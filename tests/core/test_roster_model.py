"""Rosters under random operations, against a plain model with the rules of RFC 6121."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_roster import ALICE, KINDS, items_in, new_store, reload, rosters_on
from xmppd.core.roster.rosters import Roster, Rosters, SetRequest
from xmppd.core.roster.subscription import Kind, State, inbound, outbound
from xmppd.errors import StanzaError


@dataclass
class Model:
    """A roster as a plain dict, with the rules of RFC 6121 said once more and more slowly."""

    items: dict[str, dict[str, Any]] = field(default_factory=dict)

    def item(self, contact: str) -> dict[str, Any]:
        blank = {
            "state": State.NONE,
            "name": "",
            "groups": (),
            "approved": False,
            "listed": False,
            "request": b"",
        }
        return self.items.setdefault(contact, blank)

    def tidy(self) -> None:
        for contact, item in list(self.items.items()):
            state = item["state"]
            item["listed"] |= item["approved"] or state not in (State.NONE, State.NONE_IN)
            if not item["listed"] and state is State.NONE:
                del self.items[contact]

    def set(self, contact: str, name: str, groups: tuple[str, ...]) -> None:
        self.item(contact).update(name=name, groups=groups, listed=True)

    def remove(self, contact: str) -> None:
        if self.items.get(contact, {}).get("listed"):
            del self.items[contact]

    def out(self, contact: str, kind: Kind) -> None:
        item = self.item(contact)
        _, item["state"], item["approved"] = outbound(item["state"], kind, approved=item["approved"])
        self.tidy()

    def into(self, contact: str, kind: Kind, request: bytes) -> None:
        item = self.item(contact)
        was_pending = item["state"].pending_in
        item["state"] = inbound(item["state"], kind, approved=item["approved"]).state
        if item["state"].pending_in and not was_pending:
            item["request"] = request
        self.tidy()

    def visible(self) -> list[dict[str, Any]]:
        found = []
        for contact, item in sorted(self.items.items()):
            if item["listed"]:
                seen = {
                    "jid": contact,
                    "subscription": item["state"].subscription,
                    "groups": list(item["groups"]),
                }
                if item["name"]:
                    seen["name"] = item["name"]
                if item["state"].ask:
                    seen["ask"] = "subscribe"
                if item["approved"]:
                    seen["approved"] = "true"
                found.append(seen)
        return found

    def check(self, roster: Roster, rosters: Rosters) -> None:
        states = {contact: item["state"] for contact, item in self.items.items()}
        assert items_in(rosters.result(roster, None)) == self.visible()
        assert roster.size == len(self.visible())
        assert roster.followers == tuple(sorted(name for name, state in states.items() if state.is_followed))
        assert roster.following == tuple(sorted(name for name, state in states.items() if state.is_following))
        assert roster.requests == tuple(
            sorted((name, self.items[name]["request"]) for name, state in states.items() if state.pending_in)
        )


CONTACTS = st.sampled_from(["a@x", "a@x.y", "b'<&>\"@x", "z@x"])
TEXTS = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r'<&>"),
    min_size=1,
    max_size=6,
)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("set"), CONTACTS, TEXTS | st.just(""), st.lists(TEXTS, max_size=3, unique=True).map(tuple)
    ),
    st.tuples(st.just("remove"), CONTACTS),
    st.tuples(st.just("out"), CONTACTS, st.sampled_from(KINDS)),
    st.tuples(st.just("into"), CONTACTS, st.sampled_from(KINDS), st.sampled_from([b"", b"<a/>", b"<b/>"])),
)


async def apply(rosters: Rosters, operation: tuple[Any, ...]) -> None:
    match operation:
        case "set", contact, name, groups:
            await rosters.set_item(ALICE, SetRequest(contact, name, groups))
        case "remove", contact:
            with suppress(StanzaError):
                await rosters.remove_item(ALICE, contact)
        case "out", contact, kind:
            await rosters.outbound_subscription(ALICE, contact, kind)
        case "into", contact, kind, request:
            await rosters.inbound_subscription(ALICE, contact, kind, request)


@given(st.lists(st.tuples(st.booleans(), OPERATIONS), max_size=25))
@settings(max_examples=60)
def test_rosters_are_like_a_dict(operations: list[tuple[bool, tuple[Any, ...]]]) -> None:
    async def play() -> None:
        store = await new_store()
        model = Model()
        both = (rosters_on(store), rosters_on(store))
        version = 0
        for is_ours, operation in operations:
            rosters = both[is_ours]
            await apply(rosters, operation)
            getattr(model, operation[0])(*operation[1:])
            fresh = await reload(store)
            model.check(fresh, rosters)
            cached = rosters.cached(ALICE)
            assert cached is not None
            if cached.version == fresh.version:
                model.check(cached, rosters)
            assert fresh.version >= version
            version = fresh.version
        await store.close()

    asyncio.run(play())
