"""CSV: accounts, rosters, and both."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import canonical, differences, truth

from xmppd.migrate.formats.csvfile import FORMAT, LONGEST_ROW, CsvWriter, joined, parts_of
from xmppd.migrate.formats.jsonl import line_of
from xmppd.migrate.fragments import element_of
from xmppd.migrate.record import Account, Contact, Keys, Losses, Offline, Unreadable
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError, head_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAME = TEXT.filter(bool)
WORD = st.text(st.sampled_from('a ;\\,"\r\n\tü\0\u2028\ufeff='), min_size=1, max_size=6)
XML = st.builds(lambda text: element_of(f"<a>{text}</a>"), st.text(st.sampled_from("a \n\tü"), max_size=5))
SECONDS = st.floats(allow_nan=False, allow_infinity=False)
CONTACT = st.builds(
    Contact,
    WORD,
    st.sampled_from(["none", "to", "from", "both"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | WORD,
    st.lists(WORD, max_size=3),
    st.none() | XML,
    st.booleans(),
)
KEYS = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(
            Keys,
            st.binary(min_size=1, max_size=20),
            st.integers(1, 100_000),
            st.binary(min_size=size, max_size=size).filter(lambda key: key > b"\x80"),
            st.binary(min_size=size, max_size=size),
        )
        for name, size in (("sha1", 20), ("sha256", 32), ("sha512", 64))
    },
)
ACCOUNT = st.builds(
    Account,
    NAME,
    st.sampled_from(["h", "ü.example"]),
    password=st.none() | WORD,
    keys=KEYS,
    disabled=st.booleans(),
    created=st.none() | SECONDS,
    modified=st.none() | SECONDS,
    last=st.none() | SECONDS,
    last_status=TEXT,
    roster=st.lists(CONTACT, max_size=3),
    vcard=st.none() | XML,
    blocks=st.lists(WORD, max_size=2),
)


def _read(path: Path, domain: str = "", *columns: str) -> list[Account | Unreadable]:
    with TemporaryDirectory() as scratch:
        reader = FORMAT.open(path, Options(domain, Path(scratch), columns=columns))
        found = list(reader)
        assert reader.total == len({item.name for item in found if "@" in item.name})
        reader.close()
        assert list(Path(scratch).iterdir()) == []
    return found


@given(st.lists(ACCOUNT, max_size=4, unique_by=lambda account: account.name))
def test_what_is_written_is_read_again(accounts: list[Account]) -> None:
    with TemporaryDirectory() as scratch:
        folder, losses = Path(scratch) / "out", Losses()
        writer = CsvWriter(folder, losses)
        for account in accounts:
            writer.write(account)
        writer.close()
        assert FORMAT.recognises(folder, b"")
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        found = _read(folder)
    for item in found:
        assert isinstance(item, Account)
        item.where = ""
    accounts.sort(key=lambda account: account.name.encode())
    assert [line_of(item) for item in found if isinstance(item, Account)] == list(map(line_of, accounts))
    assert losses.summary() == {}


@given(st.lists(WORD, max_size=5))
def test_several_names_in_a_field(names: list[str]) -> None:
    assert parts_of(joined(names)) == names


def test_names_in_a_field_by_hand() -> None:
    assert parts_of("a;b c;;d") == ["a", "b c", "d"]
    assert parts_of("a\\;b;c\\\\;d\\") == ["a;b", "c\\", "d\\"]
    assert parts_of("") == []


def test_what_csv_has_no_place_for_is_told(tmp_path: Path) -> None:
    losses = Losses()
    writer = CsvWriter(tmp_path / "out", losses)
    message = Offline(element_of("<message/>"), 1.0)
    writer.write(Account("a", "h", private=[element_of("<x xmlns='urn:x'/>")], offline=[message, message]))
    writer.close()
    assert losses.summary() == {"offline": 2, "private": 1}
    with pytest.raises(SourceError, match="cannot be made"):
        CsvWriter(tmp_path / "out", losses)


def test_the_truth_of_the_samples(tmp_path: Path) -> None:
    writer = CsvWriter(tmp_path / "out", Losses())
    for row in truth().values():
        local, _, domain = row["account"].rpartition("@")
        roster = [Contact(pending=False, **item) for item in row["roster"]]
        vcard = element_of(row["vcard"]) if row.get("vcard") else None
        account = Account(local, domain, password=row["password"], roster=roster, vcard=vcard)
        account.blocks = row.get("blocked", [])
        writer.write(account)
    writer.close()
    kinds = ("requests", "offline", "private")
    left = [row for row in differences(_read(tmp_path / "out")) if row["what"] not in kinds]
    assert left == []


def _file(folder: Path, text: str, name: str = "f.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def test_accounts(tmp_path: Path) -> None:
    text = (
        "\ufeffAccount , PASSWORD,keys,disabled,created,last,last_status,vcard,blocks\r\n"
        'b@h,"p"", w",,Yes,17,18.5,gone,"<vCard xmlns=\'vcard-temp\'/>",x@h;y@h\r\n'
        "a,,SCRAM-SHA-1$4096:c2FsdA==$8PDw8PDw8PDw8PDw8PDw8PDw8PA=:8PDw8PDw8PDw8PDw8PDw8PDw8PA=,,,,,,\n\n"
    )
    path = _file(tmp_path, text)
    assert FORMAT.recognises(path, head_of(path))
    first, second = _read(path, "z")
    key = b"\xf0" * 20
    assert first == Account("a", "z", "f.csv:3", keys={"sha1": Keys(b"salt", 4096, key, key)})
    assert isinstance(second, Account)
    assert second.vcard is not None
    assert canonical(second.vcard) == "<{vcard-temp}vCard></>"
    second.vcard = None
    wanted = Account("b", "h", "f.csv:2", 'p", w', disabled=True, created=17.0, last=18.5)
    wanted.last_status, wanted.blocks = "gone", ["x@h", "y@h"]
    assert second == wanted


ROSTER = (
    "contact,account,groups,name,subscription,ask,pending,approved,request,listed\n"
    "c@h,b@h,Friends;Work,Cé,both,,,,,\n"
    "d@h,a@h,,,None,subscribe,1,yes,,\n"
    'c@h,b@h,More,"two\nlines",TO,no,false,0,,\n'
    "e@h,a@h,,,,,true,,<presence type='subscribe'/>,\n"
    "f@h,a@h,,,,,true,,,true\n"
)


def test_rosters_alone_in_any_order(tmp_path: Path) -> None:
    first, second = _read(_file(tmp_path, ROSTER))
    assert isinstance(first, Account)
    request = first.roster[1].request
    assert request is not None
    assert canonical(request) == '<{jabber:client}presence type="subscribe"></>'
    first.roster[1].request = None
    assert first.roster == [
        Contact("d@h", ask=True, pending=True, approved=True),
        Contact("e@h", pending=True, listed=False),
        Contact("f@h", pending=True),
    ]
    assert second == Account(
        "b",
        "h",
        "f.csv:2",
        roster=[
            Contact("c@h", "both", name="Cé", groups=["Friends", "Work"]),
            Contact("c@h", "to", name="two\nlines", groups=["More"]),
        ],
    )


def test_a_folder_of_both(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    _file(folder, "not ours", "readme.txt")
    (folder / "rosters.csv.gz").write_bytes(gzip.compress(ROSTER.encode()))
    _file(folder, "account,password\nb@h,p\nc@h,q\n", "users.CSV")
    _file(tmp_path, "account,password\nx@h,p\n", "outside.csv")
    (folder / "link.csv").symlink_to("../outside.csv")
    assert FORMAT.recognises(folder, b"")
    found = _read(folder)
    assert [(item.name, getattr(item, "password", None)) for item in found] == [
        ("a@h", None),
        ("b@h", "p"),
        ("c@h", "q"),
    ]
    assert found[1].where == "users.CSV:2"
    assert not FORMAT.recognises(tmp_path / "in" / "..", b"") or (tmp_path / "outside.csv").exists()
    with pytest.raises(SourceError, match=r"no \*\.csv"):
        _read(tmp_path.parent)


def test_columns_are_renamed_and_left_out(tmp_path: Path) -> None:
    path = _file(tmp_path, "user,friend,Since\na,c@h,2020\n")
    found = _read(path, "h", "account=User", "contact=friend", "=since")
    assert found == [Account("a", "h", "f.csv:2", roster=[Contact("c@h")])]
    with pytest.raises(SourceError, match="is no pair of columns"):
        _read(path, "h", "user")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"f\.csv:1: no column `account`; the first line names the columns"),
        ("a@h,p\n", r"f\.csv:1: no column `account`"),
        ("account;password\n", r"f\.csv:1: no column `account`; columns are separated by commas"),
        (
            "account,pasword\n",
            r"f\.csv:1: unknown column 'pasword'; there are account, password, keys, .*--columns",
        ),
        ("account,contact,password\n", r"f\.csv:1: unknown column 'password'; there are account, contact,"),
        ("account,password,Password\n", r"f\.csv:1: two columns 'password'"),
        ('account,password\na@h,"p"q\n', r"f\.csv:2: not CSV: ',' expected after '\"'"),
        ('account,password\na@h,p\nb@h,"p\n\n', r"f\.csv:3: not CSV: unexpected end of data"),
        ("account,password\na@h,p\rb@h,q\n", r"f\.csv:2: not CSV: new-line character"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        _read(_file(tmp_path, text))


def test_values_and_rows_are_bounded(tmp_path: Path) -> None:
    for row, why in (
        ("a@h," + "p" * (LONGEST_VALUE + 1), r"f\.csv:2: not CSV: field larger"),
        ("a@h," + "p" * LONGEST_ROW, r"f\.csv:2 \(byte 17\): a row of more than \d+ bytes; is a quote open"),
        ('"a\n",' * (LONGEST_ROW // 5 + 10), r"f\.csv:\d+ \(byte \d+\): a row of more than"),
    ):
        path = _file(tmp_path, "account,password\n" + row)
        with pytest.raises(SourceError, match=why):
            _read(path)


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"account,password\na@h,\xfc\n")
    with pytest.raises(SourceError, match=r"f\.csv:2 \(byte 21\): not UTF-8"):
        _read(path)


@pytest.mark.parametrize(
    ("header", "row", "why"),
    [
        ("password", "p,q", "3 fields instead of 2"),
        ("password", "", "1 fields instead of 2"),
        ("password,disabled", "p,maybe", "disabled has to be true or false"),
        ("created", "yesterday", "created has to be seconds since the epoch"),
        ("last", "nan", "last has to be seconds since the epoch"),
        ("vcard", "<a>", "vcard: not well-formed: mismatched tag"),
        ("vcard", "<!DOCTYPE a><a/>", "vcard: not well-formed"),
        ("keys", "SCRAM-MD5$1:a$b:c", "keys have to be SCRAM-SHA-1$iterations:salt$stored:server"),
        ("keys", "SCRAM-SHA-1$1:c2FsdA==$YWJj:YWJj", "keys that are none of SCRAM-SHA-1"),
        ("contact,subscription", "c@h,remove", "'remove' is no subscription: none, to, from or both"),
        ("contact,subscription", ",to", "no contact"),
        ("contact,pending", "c@h,2", "pending has to be true or false"),
        ("contact,request", "c@h,x", "request: not one element"),
    ],
)
def test_a_wrong_row_costs_one_account(tmp_path: Path, header: str, row: str, why: str) -> None:
    good = "," * (header.count(",")) if "contact" not in header else "c@h" + "," * header.count(",")
    text = f"account,{header}\na@h,{good}\nb@h,{good}\nb@h{',' if row else ''}{row}\nc@h,{good}\n"
    first, wrong, last = _read(_file(tmp_path, text))
    assert [first.name, last.name] == ["a@h", "c@h"]
    assert isinstance(wrong, Unreadable)
    assert wrong.name == "b@h"
    if "contact" in header or "fields" in why:
        assert wrong.why.startswith(why)
        assert wrong.where == "f.csv:4"
    else:
        assert wrong.why == "a second row of this account, after f.csv:3"
        found = _read(_file(tmp_path, f"account,{header}\nb@h,{row}\n"))[0]
        assert isinstance(found, Unreadable)
        assert found.why.startswith(why)


def test_rows_of_nobody(tmp_path: Path) -> None:
    found = _read(_file(tmp_path, "account,password\n,p\na,p\nb@h,p\n"))
    assert found == [
        Unreadable("", "no account", "f.csv:2"),
        Unreadable("a", "'a' has no domain", "f.csv:3"),
        Account("b", "h", "f.csv:4", "p"),
    ]


def test_other_files_are_not_taken_for_it(tmp_path: Path) -> None:
    for head in (
        b"",
        b'{"account": "a@h"}',
        b"-- accounts, account\n",
        b"accounts,x\n",
        b"{tables,[{account}",
    ):
        assert not FORMAT.recognises(tmp_path / "f", head)
    assert not FORMAT.recognises(tmp_path, b"")
