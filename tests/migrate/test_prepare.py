"""What this server makes of an account of another one: addresses, merged contacts, limits, notes."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from xmppd.core.digest import digest
from xmppd.core.roster.item import RosterItem, item_from
from xmppd.core.roster.subscription import State
from xmppd.migrate.addresses import AddressMap, read_map
from xmppd.migrate.fragments import element_of
from xmppd.migrate.prepare import Limits, Note, Prepared, Preparer, Refused, parts_of
from xmppd.migrate.record import Account, Contact, Offline
from xmppd.migrate.source import SourceError


def account(*contacts: Contact, **fields: Any) -> Account:
    return Account("anna", "old.example", roster=[*contacts], **fields)


def prepared(source: Account, addresses: AddressMap | None = None, **limits: Any) -> Prepared:
    return Preparer(addresses or AddressMap(), Limits(**limits)).prepare(source)


def item(found: Prepared, contact: str) -> RosterItem:
    return item_from(contact, found.roster[contact])


class Careful(Preparer):
    """Looks at each contact as if it were an odd one."""

    def _usual(self, contact: Contact, account: str) -> tuple[str, str] | None:
        return None


odd_texts = st.sampled_from(
    ["", "Anna", "Zo\xeb", "\u540d", "a\x1fb", "a\tb", "\udc80", "\x7f", "x" * 255, "y" * 300]
)
addresses_of_contacts = """
    bob@old.example BOB@old.example carol@Old.example bob@old.example/x old.example a@b@c @x bob@
    anna@old.example
    dan@x.example dan@here.example old.example/r x@old.example/a@b
    eve@old.example eve@here.example a'b@x.example
""".split()
contacts = st.builds(
    Contact,
    st.sampled_from([*addresses_of_contacts, "", "l" * 256 + "@x.example", "i\u2665@x.example"]),
    st.sampled_from(["none", "to", "from", "both"]),
    st.booleans(),
    st.sampled_from([False, False, True]),
    st.booleans(),
    st.none() | odd_texts,
    st.lists(odd_texts, max_size=4),
    st.none(),
    st.sampled_from([True, True, False]),
)
maps = st.sampled_from(
    [
        AddressMap(),
        AddressMap({"x.example": "here.example", "c": "a@b"}),
        AddressMap({"x.example": "x.example/r"}, {"bob@old.example": "bobby@old.example"}),
    ]
)


@given(
    st.lists(contacts, max_size=8),
    maps,
    st.sampled_from(["keep", "cut"]),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_usual_contacts_are_what_a_closer_look_makes_of_them(
    found: list[Contact], addresses: AddressMap, over: Any, groups: int, items: int
) -> None:
    limits = Limits(over, items=items, groups=groups, requests=1)
    source = account(*found)
    one, other = (kind(addresses, limits).prepare(source) for kind in (Preparer, Careful))
    assert one == other
    assert list(one.roster) == sorted(one.roster)


def kinds(found: Prepared) -> list[str]:
    return [note.kind for note in found.notes]


def test_names_are_normalised_and_renamed() -> None:
    found = prepared(Account("ANNA", "Old.example"), AddressMap({"Old.example": "new.example"}))
    assert (found.account, found.name) == ("anna@new.example", "ANNA@Old.example")
    assert found.notes == [Note("account-renamed", "anna@new.example")]


@pytest.mark.parametrize("local", ["i♥chess", "", "a b", "a@b"])
def test_a_name_that_cannot_be_one_here_is_refused(local: str) -> None:
    with pytest.raises(Refused):
        prepared(Account(local, "old.example"))


def test_accounts_of_other_domains_are_refused() -> None:
    preparer = Preparer(domains=("new.example",))
    with pytest.raises(Refused, match="serve it, or rename it"):
        preparer.prepare(account())
    renamed = Preparer(AddressMap({"old.example": "new.example"}), domains=("new.example",))
    assert renamed.prepare(account()).account == "anna@new.example"


def test_a_map_gives_such_an_account_another_name() -> None:
    addresses = AddressMap(accounts={"i♥chess@old.example": "ichess@new.example"})
    found = prepared(Account("i♥chess", "old.example"), addresses)
    assert found.account == "ichess@new.example"
    friend = prepared(account(Contact("i♥chess@old.example", "both")), addresses)
    assert list(friend.roster) == ["ichess@new.example"]


def test_contacts_that_cannot_be_are_left_out_and_noted() -> None:
    found = prepared(
        account(
            Contact("i♥chess@old.example", "both"),
            Contact("anna@old.example", "both"),
            Contact("bob@old.example/phone", "both"),
        )
    )
    assert list(found.roster) == ["bob@old.example"]
    assert kinds(found) == ["contact-refused", "contact-is-oneself", "contact-without-resource"]


def test_escapes_are_part_of_a_name() -> None:
    found = prepared(account(Contact("o\\27hara@old.example", "to"), Contact("a%40b@gw.example", "to")))
    assert list(found.roster) == ["a%40b@gw.example", "o\\27hara@old.example"]


def test_two_rows_of_one_contact_become_one() -> None:
    found = prepared(
        account(
            Contact("xn--bcher-kva.example", "to", name="A", groups=["x"]),
            Contact("BÜCHER.example", "from", name="Longer", groups=["y", "x"]),
        )
    )
    merged = item(found, "bücher.example")
    assert (merged.subscription, merged.name, merged.groups) == ("both", "Longer", ("x", "y"))
    assert kinds(found) == ["contacts-merged"]


def test_requests_keep_their_stanza_with_addresses_of_here() -> None:
    request = element_of(
        "<presence from='bob@old.example/x' id='7'><status>hi</status><nick xmlns='urn:n'/></presence>"
    )
    contact = Contact("bob@old.example", pending=True, request=request, listed=False)
    found = prepared(account(contact), AddressMap({"old.example": "new.example"}))
    one = item(found, "bob@new.example")
    assert one.hidden
    assert one.state is State.NONE_IN
    assert one.request == (
        b"<presence from='bob@new.example' id='7' type='subscribe' to='anna@new.example'>"
        b"<status>hi</status><nick xmlns='urn:n'/></presence>"
    )


def test_a_request_for_what_is_granted_does_not_count() -> None:
    contact = Contact("bob@old.example", "both", ask=True, pending=True, request=element_of("<presence/>"))
    one = item(prepared(account(contact)), "bob@old.example")
    assert (one.state, one.request) == (State.BOTH, b"")


def test_a_contact_that_says_nothing_is_left_out() -> None:
    found = prepared(account(Contact("bob@old.example", listed=False)))
    assert found.roster == {}
    assert kinds(found) == ["empty-item"]


def test_names_lose_what_no_xml_can_hold() -> None:
    found = prepared(account(Contact("bob@old.example", name="a\x00b\x1fc\nd", groups=["g\x7f", ""])))
    one = item(found, "bob@old.example")
    assert (one.name, one.groups) == ("a\ufffdb\ufffdc\nd", ("g\ufffd",))
    assert sorted(kinds(found)) == [
        "group-with-control-characters",
        "group-without-name",
        "name-with-control-characters",
    ]


MANY = [f"g{number:02}" for number in range(12)]
LONG = "ä" * 600


@pytest.mark.parametrize(("over", "name", "groups"), [("keep", LONG, 12), ("cut", "ä" * 511, 10)])
def test_limits_of_an_item(over: str, name: str, groups: int) -> None:
    found = prepared(account(Contact("bob@old.example", name=LONG, groups=MANY)), over=over)
    one = item(found, "bob@old.example")
    assert (one.name, len(one.groups)) == (name, groups)
    assert sorted(kinds(found)) == ["name-too-long", "too-many-groups"]


def test_what_is_beyond_a_limit_may_refuse_the_account() -> None:
    with pytest.raises(Refused, match="too many groups"):
        prepared(account(Contact("bob@old.example", groups=MANY)), over="refuse")


def test_of_too_many_contacts_friends_stay() -> None:
    contacts = [Contact(f"c{number}@x.example", "none") for number in range(5)]
    contacts += [Contact("friend@x.example", "both"), Contact("seen@x.example", "from")]
    found = prepared(account(*contacts), over="cut", items=3)
    assert list(found.roster) == ["c0@x.example", "friend@x.example", "seen@x.example"]
    assert len(prepared(account(*contacts), items=3).roster) == 7


def test_of_too_many_messages_the_newest_stay() -> None:
    waiting = [
        Offline(element_of(f"<message><body>{number}</body></message>"), 10.0 * number) for number in range(4)
    ]
    found = prepared(account(offline=waiting), over="cut", messages=2)
    assert [at for _, at in found.offline] == [20.0, 30.0]
    assert b"stamp='1970-01-01T00:00:20Z'" in found.offline[0][0]
    assert b"to='anna@old.example'" in found.offline[0][0]


def test_belongings_are_as_plugins_keep_them() -> None:
    card = element_of("<vCard xmlns='vcard-temp'><FN>Anna</FN></vCard>")
    notes = element_of("<storage xmlns='storage:x'><a/></storage>")
    found = prepared(account(vcard=card, private=[notes], blocks=["Spam.example", "a@b/R", "i♥@x"], last=5.0))
    assert found.vcard == b"<vCard xmlns='vcard-temp'><FN>Anna</FN></vCard>"
    assert found.private == {"{storage:x}storage": b"<storage xmlns='storage:x'><a/></storage>"}
    assert found.blocks == ["a@b/R", "spam.example"]
    assert kinds(found) == ["block-refused"]
    assert sorted(parts_of(found)) == ["blocks", "last", "private", "vcard"]


def test_an_empty_vcard_is_none() -> None:
    assert prepared(account(vcard=element_of("<vCard xmlns='vcard-temp'/>"))).vcard is None


def test_the_same_account_has_the_same_hash() -> None:
    one = account(Contact("b@x", "both", groups=["y", "x"]), Contact("a@x", "to"))
    other = account(Contact("a@x", "to"), Contact("b@x", "both", groups=["x", "y"]))
    hashes = [digest(parts_of(prepared(it))["roster"]) for it in (one, other)]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 20


def test_a_map_is_read(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("# old, new\nold.example,new.example\n\nstraße@old.example, strasse2@new.example\n")
    found = read_map(path)
    assert found.renamed("x@old.example/r") == "x@new.example/r"
    assert found.renamed("straße@old.example") == "strasse2@new.example"
    assert found.renamed("old.example") == "new.example"
    assert found.renamed("x@other.example") == "x@other.example"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n", 1), ("a,b,c\n", 1), ("x,y\na@b,c\n", 2), ("a,b\na,c\n", 2), ("a,i♥@x\n", 1), ("a@b,i♥@x\n", 1)],
)
def test_a_wrong_map_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=rf"map\.csv:{line}: "):
        read_map(path)
