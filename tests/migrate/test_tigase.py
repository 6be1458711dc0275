"""Rosters of Tigase."""

import base64
import hashlib
from pathlib import Path

import pytest
from truth import fits

from xmppd.migrate.detect import recognised
from xmppd.migrate.formats.tigase import FORMAT, STATES
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError, head_of
from xmppd.xml.build import serialize


def _read(path: Path, domain: str = "") -> tuple[list[Account | Unreadable], dict[str, int]]:
    losses = Losses()
    reader = FORMAT.open(path, Options(domain, path.parent, losses=losses))
    found = list(reader)
    reader.close()
    return found, dict(losses.summary())


def _lines(folder: Path, *rows: str) -> Path:
    path = folder / "rosters.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_the_nine_states(tmp_path: Path) -> None:
    text = "".join(f"<contact jid='{word}@h' subs='{word}' name='N'/>" for word in STATES)
    path = _lines(tmp_path, f"a@h\t{text}<contact jid='x@h' subs='remove'/>")
    assert recognised(path) is FORMAT
    (account,), losses = _read(path)
    assert losses == {}
    assert isinstance(account, Account)
    assert {
        each.jid: (each.subscription, each.ask, each.pending, each.approved) for each in account.roster
    } == {
        "none@h": ("none", False, False, False),
        "none_pending_out@h": ("none", True, False, False),
        "none_pending_in@h": ("none", False, True, False),
        "none_pending_out_in@h": ("none", True, True, False),
        "to@h": ("to", False, False, False),
        "to_pending_in@h": ("to", False, True, False),
        "from@h": ("from", False, False, False),
        "from_pending_out@h": ("from", True, False, False),
        "both@h": ("both", False, False, False),
        "none_pre_approved@h": ("none", False, False, True),
        "none_pending_out_pre_approved@h": ("none", True, False, True),
        "to_pre_approved@h": ("to", False, False, True),
    }


def test_names_groups_and_requests(tmp_path: Path) -> None:
    path = _lines(
        tmp_path,
        "b@h\t<contact jid='c@h/r' subs='both' preped='simple' name='C &amp; &quot;c&quot; ü' "
        "groups='x,y z,,'/>",
        "a\t<contact jid='c@h' subs='none_pending_in' name='c'/>"
        "<contact jid='d' subs='none_pending_in' name='D'/>",
        "empty@h\t",
    )
    (first, second, third), losses = _read(path, "z")
    assert first == Account(
        "a", "z", "rosters.tsv:2", roster=[
            Contact("c@h", pending=True, name="c", listed=False), Contact("d", pending=True, name="D"),
        ],
    )  # fmt: skip
    assert isinstance(second, Account)
    assert second.roster == [Contact("c@h/r", "both", name='C & "c" ü', groups=["x", "y z"])]
    assert third == Account("empty", "h", "rosters.tsv:3")
    assert losses == {}


def test_escapes_of_lines_are_undone(tmp_path: Path) -> None:
    path = _lines(tmp_path, "a@h\t<contact jid='c@h'\\n name='a\\\\b' subs='to'/>\\n<contact jid='d@h'/>")
    (account,), _ = _read(path)
    assert isinstance(account, Account)
    assert account.roster == [Contact("c@h", "to", name="a\\b"), Contact("d@h")]


def test_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "b@h.xml").write_text("<contact jid='c@h' subs='both'/>")
    (folder / "a@h").write_text("\ufeff <contact jid='c@h'/>")
    (folder / "bad@h.txt").write_bytes(b"<contact jid='\xfc'/>")
    (folder / "readme").write_text("hello")
    (tmp_path / "out@h").write_text("<contact jid='c@h'/>")
    (folder / "link@h").symlink_to("../out@h")
    assert recognised(folder) is FORMAT
    found, losses = _read(folder)
    assert [item.name for item in found] == ["a@h", "b@h", "bad@h"]
    assert found[2] == Unreadable("bad@h", "not UTF-8 at byte 14", "bad@h.txt")
    assert losses == {}
    assert _read(folder / "b@h.xml")[0][0] == Account("b", "h", "b@h.xml", roster=[Contact("c@h", "both")])


PASSWORD = "pencil"
SALT = b"0123456789abcdef"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


DUMP = r"""
CREATE TABLE `tig_users` (
  `uid` bigint,
  `user_id` varchar(2049),
  `user_pw` varchar(255),
  `account_status` int
);
INSERT INTO `tig_users` VALUES (1,'db-properties',NULL,-1),(2,'b@h',PASSWORD,1),(3,'a@h','',0);
CREATE TABLE `tig_pairs` (
  `nid` bigint,
  `uid` bigint,
  `pkey` varchar(255),
  `pval` mediumtext
);
INSERT INTO `tig_pairs` VALUES (1,1,'schema','8'),
(5,2,'roster','<contact subs=\"both\" jid=\"c@h\" groups=\"x\"/>'),
(6,2,'vCard','<vCard xmlns=\"vcard-temp\"><FN>B</FN></vCard>'),(7,2,'privacy','<x/>'),(8,3,'vCard','<vCard');
CREATE TABLE `tig_user_credentials` (
  `uid` bigint,
  `username` varchar(255),
  `mechanism` varchar(99),
  `value` mediumtext
);
"""


def _dump(folder: Path, *, credentials: str = "", password: str = "NULL") -> Path:
    path = folder / "dump.sql"
    path.write_text(DUMP.replace("PASSWORD", password) + credentials, encoding="utf-8")
    return path


def test_a_dump(tmp_path: Path) -> None:
    path = _dump(tmp_path, password="'pencil'")
    assert recognised(path) is FORMAT
    (first, second), losses = _read(path)
    assert losses == {"pair": 1, "unreadable-vcard": 1}
    assert isinstance(first, Account)
    assert isinstance(second, Account)
    assert (first.name, first.disabled, first.password, first.roster) == ("a@h", True, None, [])
    assert (second.name, second.disabled, second.password) == ("b@h", False, "pencil")
    assert second.roster == [Contact("c@h", "both", groups=["x"])]
    assert second.vcard is not None
    assert serialize(second.vcard) == b"<vCard xmlns='vcard-temp'><FN>B</FN></vCard>"


def test_keys_of_a_dump(tmp_path: Path) -> None:
    salted = hashlib.pbkdf2_hmac("sha1", PASSWORD.encode(), SALT, 4096)
    key = b"\xf0" * 32
    rows = ",".join(
        f"(2,'default','{mechanism}','{value}')"
        for mechanism, value in (
            ("SCRAM-SHA-1", f"s={_base64(SALT)},i=4096,p={_base64(salted)}"),
            ("SCRAM-SHA-256", f"s={_base64(SALT)},i=4096,t={_base64(key)},e={_base64(key)}"),
            ("MD5-USERNAME-PASSWORD", "abcdef"),
            ("SCRAM-SHA-512", "s=,i=x"),
        )
    )
    credentials = f"INSERT INTO `tig_user_credentials` VALUES {rows};\n"
    path = _dump(tmp_path, credentials=credentials, password=f"'{'0f' * 16}'")
    (_, account), losses = _read(path)
    assert isinstance(account, Account)
    assert account.password is None
    assert fits("sha1", account.keys["sha1"], PASSWORD)
    assert account.keys["sha256"] == (SALT, 4096, key, key)
    assert losses == {"credential": 2, "pair": 1, "password-hash": 1, "unreadable-vcard": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<contact jid='c@h'", "roster: not well-formed"),
        ("<!DOCTYPE a [<!ENTITY e 'x'>]><contact jid='&e;'/>", "roster: not well-formed"),
        ("</roster><roster>", "roster: not one element"),
        ("<contact>" * 100_000, "roster: not well-formed"),
        ("<contact>" * 100 + "</contact>" * 100, "roster: more than 64 levels"),
    ],
)
def test_a_broken_roster_costs_its_account(tmp_path: Path, text: str, why: str) -> None:
    (first, wrong), _ = _read(_lines(tmp_path, "a@h\t<contact jid='c@h'/>", f"b@h\t{text}"))
    assert first.name == "a@h"
    assert isinstance(wrong, Unreadable)
    assert (wrong.name, wrong.where) == ("b@h", "rosters.tsv:2")
    assert wrong.why.startswith(why)


def test_a_broken_contact_costs_itself(tmp_path: Path) -> None:
    text = "<contact subs='to'/><contact jid='c@h' subs='friend'/><item jid='d@h'/><contact jid='e@h'/>"
    (account,), losses = _read(_lines(tmp_path, f"a@h\t{text}"))
    assert isinstance(account, Account)
    assert account.roster == [Contact("e@h")]
    assert losses == {"unreadable-contact": 3}


def test_lines_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(
        b"a@h\t<contact jid='c@h'/>\n\nno tab\nb\t\na@h\t<contact jid='d@h'/>\n\xfc@h\t\n"
         b"c@h\t" + b"x" * LONGEST_VALUE + b"\nd@h\t\n"
    )  # fmt: skip
    found, _ = _read(path)
    assert [(item.name, getattr(item, "why", ""), item.where) for item in found] == [
        ("no tab", "no tab between the account and its roster", "f:3"),
        ("b", "'b' has no domain", "f:4"),
        ("", "not UTF-8 at byte 0 of the line", "f:6"),
        ("", f"a line of more than {LONGEST_VALUE} bytes (byte 66)", "f:7"),
        ("a@h", "a second roster of this account", "f:5"),
        ("d@h", "", "f:8"),
    ]


def test_other_files_are_not_taken_for_it(tmp_path: Path) -> None:
    for text in ("", "<roster/>", "a,b\n", "account\tcontact\n", "-- dump\n", '{"a":\t1}'):
        path = tmp_path / "f"
        path.write_text(text)
        assert not FORMAT.recognises(path, head_of(path))
    assert not FORMAT.recognises(tmp_path, b"")
    with pytest.raises(SourceError):
        FORMAT.open(tmp_path / "none", Options(scratch=tmp_path))
