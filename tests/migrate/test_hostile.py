"""Sources that are broken or mean harm: every format yields accounts, or says what is wrong and where, and
that within its memory; nothing of a source is ever executed or fetched.
"""

import gzip
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from truth import SAMPLES
from values import BY_NAME, NAMES, PIE, VALUES

from xmppd.migrate.formats.jsonl import account_of, line_of
from xmppd.migrate.record import Account, Losses, Unreadable
from xmppd.migrate.source import GZIP, Format, Options, SourceError, head_of

Files = Mapping[str, bytes]
"""A source by the names of its files; a single one without a folder in its name is given as a file."""

FOLDERS = ("csv", "prosody", "tigase", "xep-0227")
SQL = ("ejabberd-sql", "mongooseim", "openfire-sql", "prosody-sql", "tigase")
MARK = "hostile-was-here"


def _put(folder: Path, files: Files) -> Path:
    """The source made of some files, in a folder of its own."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    only = next(iter(files))
    return folder / only if len(files) == 1 and "/" not in only else folder


def _read(format: Format, path: Path, scratch: Path) -> list[Account | Unreadable | str]:
    """What comes of a source, with the sentence of an error as the last. All of it has to be fit for what
    comes next.
    """
    found: list[Account | Unreadable | str] = []
    losses = Losses()
    try:
        format.recognises(path, head_of(path))
        reader = format.open(path, Options("h.example", scratch, losses=losses))
        try:
            assert reader.total is None or reader.total >= 0
            for item in reader:
                found.append(item)
                if isinstance(item, Account):
                    assert account_of(line_of(item).encode().decode()).name == item.name
                else:
                    assert isinstance(item, Unreadable)
                    assert item.why
                    assert len(item.why) < 2000
        finally:
            reader.close()
    except SourceError as error:
        found.append(str(error))
    if found and isinstance(found[-1], str):
        inside = [name for _, _, names in os.walk(path) for name in names] if "\0" not in str(path) else []
        assert any(name in found[-1] for name in (path.name, scratch.name, *inside))
    assert list(scratch.iterdir()) == []
    for loss in losses.kinds.values():
        assert all(len(detail) <= 200 for _, detail in loss.samples)
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


# what is whole, to be spoilt


def _samples(*paths: str) -> list[Files]:
    return [{Path(path).name: (SAMPLES / path).read_bytes()} for path in paths]


def _folder(path: str, *stems: str) -> Files:
    """The files of a folder of samples with these stems."""
    root = SAMPLES / path
    found = [
        each for each in sorted(root.rglob("*")) if each.is_file() and each.name.partition(".")[0] in stems
    ]
    return {str(each.relative_to(root)): each.read_bytes() for each in found}


def _documents(path: str, *begin: str) -> Files:
    """The same of a folder that is kept as `documents.jsonl`."""
    rows = map(json.loads, (SAMPLES / path / "documents.jsonl").open(encoding="utf-8"))
    return {row["file"]: row["text"].encode() for row in rows if row["file"].startswith(begin)}


def _account(row: dict[str, Any]) -> Account:
    keys = ("account", "password", "roster", "vcard", "private")
    return account_of(json.dumps({key: row.get(key) for key in keys}))


def _jsonl() -> bytes:
    rows = (SAMPLES / "expected.jsonl").read_text(encoding="utf-8").split("\n")[:12]
    return "\n".join(line_of(_account(json.loads(row))) for row in rows).encode()


CSV: Files = {
    "accounts.csv": "account,password,keys,disabled,created,vcard,blocks\r\n"
    "a@h,\"p,ü\",,yes,17,<vCard xmlns='vcard-temp'/>,x@h;y@h\r\n"
    "b@h,,SCRAM-SHA-1$4096:c2FsdA==$8PDw8PDw8PDw8PDw8PDw8PDw8PA=:8PDw8PDw8PDw8PDw8PDw8PDw8PA=,,,,\r\n".encode(),
    "rosters.csv": b"account,contact,name,subscription,ask,pending,groups,request\n"
    b'a@h,c@h,"C ""c""\nc",both,,,x;y\\;z,\nb@h,c@h,,none,,true,,"<presence type=\'subscribe\'/>"\n',
}
TIGASE: Files = {
    "rosters.tsv": "a@h\t<contact jid='c@h' subs='both' name='ü' groups='x,y'/><contact jid='d@h'/>\n"
    'b@h\t<contact jid="c@h" subs="none_pending_in"/>\\n\n'.encode(),
}
TIGASE_DUMP: Files = {
    "tigase.sql": b"CREATE TABLE `tig_users` (\n `uid` bigint,\n `user_id` text,\n `user_pw` text,\n"
    b" `account_status` int\n);\nINSERT INTO `tig_users` VALUES (1,'a@h','p',1),(2,'b@h',NULL,0);\n"
    b"CREATE TABLE `tig_pairs` (\n `nid` bigint,\n `uid` bigint,\n `pkey` text,\n `pval` text\n);\n"
    b"INSERT INTO `tig_pairs` VALUES (5,1,'roster','<contact subs=\\\"both\\\" jid=\\\"c@h\\\"/>');\n",
}
TIGASE_FILES: Files = {"a@h.xml": b"<contact jid='c@h'/>", "b@h.xml": b"<contact jid='d'/>"}
EJABBERD = "ejabberd-23.01"
PROSODY = "prosody-0.12.3"
HOSTS = ("", "_chat_example", "_games_example")
SEEDS: Mapping[str, Callable[[], list[Files]]] = {
    "jsonl": lambda: [{"accounts.jsonl": _jsonl()}],
    "csv": lambda: [CSV, {"rosters.csv": CSV["rosters.csv"]}],
    "tigase": lambda: [
        TIGASE,
        TIGASE_DUMP,
        {"a@h.xml": b"<contact jid='c@h'/>", "b@h.xml": b"<contact jid='d'/>"},
    ],
    "ejabberd-mnesia": lambda: _samples(f"{EJABBERD}/mnesia-sha1/dump/mnesia.dump"),
    "ejabberd-sql": lambda: _samples(
        f"{EJABBERD}/mariadb-old-schema-plain/sql/games.example.sql",
        f"{EJABBERD}/postgresql-new-schema-sha512/sql/pg_dump.sql",
        f"{EJABBERD}/sqlite-old-schema-sha256/sql/games.example.sql",
    ),
    "mongooseim": lambda: _samples("mongooseim-by-hand/mongooseim.sql"),
    "openfire-sql": lambda: _samples("openfire-by-hand/openfire.sql"),
    "prosody": lambda: [
        _folder(f"{PROSODY}/internal-sha1/data", "anna", "ines", "kira", "lukas", "maria"),
        _folder(f"{PROSODY}/internal-plain/data", "nils", "henry", "mia"),
    ],
    "prosody-sql": lambda: _samples(f"{PROSODY}/sqlite-sha256/prosody.sql"),
    "xep-0227": lambda: [
        _documents(f"{PROSODY}/xep0227-from-internal-plain", "ines@chat", "anna@chat", "nils@chat"),
        _folder(f"{EJABBERD}/mnesia-plain/piefxis", *(f"20261128-083206{each}" for each in HOSTS)),
        *_samples("openfire-by-hand/openfire-plugin.xml", "openfire-by-hand/openfire-plugin-xep0227.xml"),
    ],
}


def test_every_format_is_attacked() -> None:
    assert sorted(SEEDS) == sorted(VALUES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_whole_is_read(name: str, tmp_path: Path, scratch: Path) -> None:
    for number, files in enumerate(SEEDS[name]()):
        found = _read(BY_NAME[name], _put(tmp_path / str(number), files), scratch)
        assert any(isinstance(item, Account) for item in found)
        assert not any(isinstance(item, str) for item in found)


TOKENS = (
    *(bytes((code,)) for code in b"\0\xff\r\n\t'\"\\`<>&{}[]();:,.=@/%-"),
    *rb"\N \u \ud800 \x </ <!-- ]]> <![CDATA[ <?x &#0; &lt; << >> -- /* */ $$ [[ ]] => NULL nil".split(),
    *b"true -1 0x 1e999 NaN Infinity xmlns='urn:x' replace( unistr( (1,2), {\"a\":1} return end".split(),
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"9" * 400,
    b"<a>" * 70,
    b"{" * 300,
)


def _spoilt(rng: random.Random, data: bytes) -> bytes:
    """A file with one to five things wrong."""
    for _ in range(rng.randrange(1, 6)):
        at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        short = min(end, at + rng.randrange(1, 200))
        data = rng.choice(
            (
                lambda d, a=at, s=short: d[:a] + d[s:],
                lambda d, a=at, s=short: d[:s] + d[a:s] + d[s:],
                lambda d, a=at, s=short: d[:a] + rng.randbytes(s - a) + d[s:],
                lambda d, a=at: d[:a] + rng.choice(TOKENS) + d[a:],
                lambda d, a=at: d[:a] + rng.choice(TOKENS) + d[a + 1 :],
                lambda d, a=at, e=end: d[:a] + d[e:],
            )
        )(data)
    return data


@pytest.mark.parametrize("name", NAMES)
def test_cut_off_anywhere(name: str, tmp_path: Path, scratch: Path) -> None:
    rng = random.Random(name)
    for number, files in enumerate(SEEDS[name]()):
        for turn in range(20):
            which = rng.choice(sorted(files))
            size = len(files[which])
            cut = turn if turn < 3 else size - turn if turn < 6 else rng.randrange(size + 1)
            spoilt = {**files, which: files[which][: max(cut, 0)]}
            _read(BY_NAME[name], _put(tmp_path / f"{number}-{turn}", spoilt), scratch)


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_anyhow(name: str, tmp_path: Path, scratch: Path) -> None:
    rng = random.Random(name)
    for number, files in enumerate(SEEDS[name]()):
        for turn in range(40):
            which = rng.choice(sorted(files))
            spoilt = {**files, which: _spoilt(rng, files[which])}
            _read(BY_NAME[name], _put(tmp_path / f"{number}-{turn}", spoilt), scratch)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_chance(name: str, tmp_path: Path, scratch: Path) -> None:
    rng = random.Random(name)
    first = next(iter(SEEDS[name]()))
    for turn in range(20):
        size = rng.choice((0, 1, 10, 1000, 100_000))
        files = {which: rng.randbytes(size) for which in first}
        _read(BY_NAME[name], _put(tmp_path / str(turn), files), scratch)
        files = {
            which: bytes(rng.choices(b"<>{}[]()'\",;:.\\=-/ \naA01", k=min(size, 1000))) for which in first
        }
        _read(BY_NAME[name], _put(tmp_path / f"{turn}-signs", files), scratch)


# one value, with what is put into it


def _with(name: str, value: bytes) -> Files:
    which, head, tail = VALUES[name]
    return {which: head + value + tail}


ENTITY = b"<!DOCTYPE a [<!ENTITY e 'boom'><!ENTITY f SYSTEM 'file:///etc/passwd'>%b]>"
LAUGHS = b"".join(b"<!ENTITY l%d '%b'>" % (n, b"&l%d;" % (n - 1) * 10 if n else b"lol") for n in range(12))
BOMBS = {
    "laughs": (b"<!DOCTYPE a [" + LAUGHS + b"]>", b"<a>&l11;</a>"),
    "external": (b"<!DOCTYPE a [<!ENTITY f SYSTEM 'file:///etc/passwd'>]>", b"<a>&f;</a>"),
    "parameter": (
        b"<!DOCTYPE a SYSTEM 'file:///etc/passwd' [<!ENTITY % p SYSTEM 'http://127.0.0.1:1/'>%p;]>",
        b"<a/>",
    ),
    "quadratic": (b"<!DOCTYPE a [<!ENTITY q '" + b"q" * 50_000 + b"'>]>", b"<a>" + b"&q;" * 50_000 + b"</a>"),
    "default": (b"<!DOCTYPE a [<!ATTLIST a b CDATA 'boom'>]>", b"<a/>"),
    "depth": (b"", b"<a>" * 100_000 + b"</a>" * 100_000),
    "open": (b"", b"<a>" * 100_000),
    "attributes": (b"", b"<a " + b" ".join(b"a%d=''" % n for n in range(20_000)) + b"/>"),
    "namespaces": (b"", b"".join(b"<a xmlns:p%d='urn:x'>" % n for n in range(5_000))),
    "elements": (b"", b"<a>" + b"<b/>" * 200_000 + b"</a>"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", NAMES)
def test_xml_that_means_harm(name: str, bomb: str, tmp_path: Path, scratch: Path) -> None:
    prolog, tree = BOMBS[bomb]
    value = prolog + tree
    if name == "jsonl":
        value = value.replace(b'"', b'\\"')
    elif name in SQL:
        value = value.replace(b"'", b'"')
    found = _read(BY_NAME[name], _put(tmp_path / "in", _with(name, value)), scratch)
    text = "".join(line_of(item) if isinstance(item, Account) else str(item) for item in found)
    assert "b='boom'" not in text
    assert "root:" not in text
    assert "lollol" not in text
    if name == "xep-0227":
        which, head, tail = VALUES[name]
        found = _read(BY_NAME[name], _put(tmp_path / "prolog", {which: prolog + head + tree + tail}), scratch)
        assert (isinstance(found[-1], str) and "f.xml" in found[-1]) or not prolog


def _deep(opening: bytes, closing: bytes = b"") -> bytes:
    return opening * 100_000 + closing * 100_000


DEEP: Mapping[str, tuple[bytes, ...]] = {
    "jsonl": (b'"}\n{"account": "b@h", "roster": ' + _deep(b"["), b'"}\n' + _deep(b'{"a":')),
    "csv": (_deep(b"<a>"),),
    "tigase": (_deep(b"<contact>"),),
    "ejabberd-mnesia": (
        b'">>}]}}.\n{vcard,{<<"a">>,<<"h">>},' + _deep(b'{xmlel,<<"a">>,[],['),
        b'">>}]}}.\n' + _deep(b"{") + b".\n",
        b'">>}]}}.\n{vcard,{<<"a">>,<<"h">>},' + _deep(b"[", b"]") + b"}.\n",
    ),
    "xep-0227": (_deep(b"<a>", b"</a>"), b"</vCard>" + _deep(b"<user>")),
    "prosody": (b'";\n\t["x"] = ' + _deep(b"{"), b'";\n};' + _deep(b"((")),
    "prosody-sql": (_deep(b'{"a":'), _deep(b"[", b"]"), b"');" + _deep(b"(")),
    "ejabberd-sql": (
        b"'" + _deep(b"||("),
        b"');" + _deep(b"("),
        b"');INSERT INTO users VALUES " + _deep(b"("),
    ),
    "mongooseim": (b"');INSERT INTO users VALUES (" + _deep(b"replace("),),
    "openfire-sql": (
        b"');INSERT INTO ofUser VALUES (" + _deep(b"concat("),
        b"'); CREATE TABLE x (" + _deep(b"("),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_depth_of_a_hundred_thousand(name: str, tmp_path: Path, scratch: Path) -> None:
    for number, value in enumerate(DEEP[name]):
        _read(BY_NAME[name], _put(tmp_path / str(number), _with(name, value)), scratch)


# what wants to be executed or fetched

SQL_CODE = (
    b"');\n\\! touch %b\n",
    b"');\n.shell touch %b\n",
    b"');\n.output %b\n",
    b"');\nCOPY users FROM PROGRAM 'touch %b';\n",
    b"');\nATTACH DATABASE '%b' AS x; CREATE TABLE x.y(z);\n",
    b"');\nSELECT load_extension('%b');\nSELECT writefile('%b', 'x');\n",
    b"');\nINSERT INTO users SELECT * FROM users;\nVACUUM INTO '%b';\n",
    b"');\nCREATE TRIGGER t AFTER INSERT ON users BEGIN SELECT writefile('%b', 1); END;\n",
    b"');\nSELECT 'x' INTO OUTFILE '%b';\nsystem touch %b\nsource %b\n",
    b"');\nDROP TABLE users; DELETE FROM users; PRAGMA writable_schema=1;\n",
)
CODE: Mapping[str, tuple[bytes, ...]] = {
    "prosody": (
        b'";};\nos.execute("touch %b")\nlocal x = {["',
        b'" .. os.execute("touch %b") .. "',
        b'";\n\t["x"] = io.popen("touch %b");\n\t["y"] = "',
        b'";};\nreturn (function() os.execute("touch %b") end)() --',
    ),
    "ejabberd-mnesia": (
        b'">>}]}}.\nos:cmd("touch %b").\n',
        b'">>}]}}.\n{passwd,{<<"b">>,<<"h">>},os:cmd("touch %b")}.\n',
        b'">>}]}}.\nfun() -> os:cmd("touch %b") end.\n',
    ),
    **dict.fromkeys(SQL, SQL_CODE),
}


@pytest.mark.parametrize("name", CODE)
def test_nothing_is_executed(name: str, tmp_path: Path, scratch: Path) -> None:
    mark = tmp_path / MARK
    for number, code in enumerate(CODE[name]):
        value = code.replace(b"%b", os.fsencode(mark))
        _read(BY_NAME[name], _put(tmp_path / str(number), _with(name, value)), scratch)
        assert not mark.exists()


def test_sql_that_is_no_dump(tmp_path: Path, scratch: Path) -> None:
    for name in SQL:
        for number, text in enumerate(
            (b"SELECT 1;", b"-- nothing\n", b"hello", b"SQLite format 3\0" + b"x" * 5000)
        ):
            path = _put(tmp_path / f"{name}{number}", {"f.sql": text})
            assert not BY_NAME[name].recognises(path, head_of(path))
            found = _read(BY_NAME[name], path, scratch)
            assert not any(isinstance(item, Account) for item in found)


SECRET = "stolen"


def test_includes_that_leave_the_folder(tmp_path: Path, scratch: Path) -> None:
    user = f"<user xmlns='urn:xmpp:pie:0' name='{SECRET}' password='p'/>"
    host = f"<host xmlns='urn:xmpp:pie:0' jid='h'>{user}</host>"
    outside = _put(tmp_path / "out", {"s.xml": host.encode(), "u.xml": user.encode()})
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.xml").symlink_to(outside / "s.xml")
    (folder / "round.xml").symlink_to("round.xml")
    os.mkfifo(folder / "pipe.xml")
    hrefs = (
        *(
            "../out/s.xml",
            f"{outside}/s.xml",
            f"file://{outside}/s.xml",
            "./../in/../out/s.xml",
            "..%2fout%2fs.xml",
        ),
        *(
            "link.xml",
            "round.xml",
            "pipe.xml",
            "/dev/zero",
            "http://127.0.0.1:1/s.xml",
            "f0.xml",
            "",
            ".",
            "a" * 5000,
        ),
    )
    for number, href in enumerate(hrefs):
        inner = f"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='{href}'/>"
        for body in (inner, f"<host jid='h'>{inner}</host>"):
            path = folder / f"f{number}.xml"
            path.write_text(f"<server-data xmlns='urn:xmpp:pie:0'>{body}</server-data>")
            found = _read(BY_NAME["xep-0227"], path, scratch)
            assert SECRET not in "".join(item.name if isinstance(item, Account) else "" for item in found)


INSIDE: Mapping[str, tuple[str, bytes]] = {
    "csv": ("{}.csv", b"account,password\nstolen@h,p\n"),
    "tigase": ("{}@h", b"<contact jid='c@h'/>"),
    "prosody": ("h/accounts/{}.dat", b'return {["password"]="p";};'),
    "xep-0227": (
        "{}@h.xml",
        PIE.replace(b"%b", b"<user name='stolen' password='p'/>"),
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_links_pipes_and_devices_in_a_folder(name: str, tmp_path: Path, scratch: Path) -> None:
    pattern, content = INSIDE[name]
    outside = _put(tmp_path / "out", {"file": content})
    folder = tmp_path / "in"
    good = folder / pattern.format("good")
    good.parent.mkdir(parents=True)
    good.write_bytes(content.replace(b"stolen", b"good"))
    (good.parent / Path(pattern.format(SECRET)).name).symlink_to(outside)
    (good.parent / Path(pattern.format("round")).name).symlink_to(Path(pattern.format("round")).name)
    (good.parent / Path(pattern.format("zero")).name).symlink_to("/dev/zero")
    (good.parent / Path(pattern.format("dir")).name).mkdir()
    os.mkfifo(good.parent / Path(pattern.format("pipe")).name)
    found = _read(BY_NAME[name], folder, scratch)
    names = [item.name for item in found if isinstance(item, Account)]
    assert not any(SECRET in each or "zero" in each for each in names)
    assert "good@h" in names or isinstance(found[-1], str)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file(name: str, tmp_path: Path, scratch: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").touch()
    names = (
        "pipe",
        "round",
        "none",
        "nothing",
        "empty",
        "x" * 300,
        "a\0b",
        "/dev/zero",
        "/dev/null",
        "/dev/full",
    )
    for path in (tmp_path / each for each in names):
        found = _read(BY_NAME[name], path, scratch)
        assert not any(isinstance(item, Account) for item in found)


# packed files


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prosody"])
def test_packed_and_broken(name: str, tmp_path: Path, scratch: Path) -> None:
    rng = random.Random(name)
    files = next(files for files in SEEDS[name]() if len(files) == 1)
    ((which, data),) = files.items()
    packed = gzip.compress(data, 1)
    whole = _read(BY_NAME[name], _put(tmp_path / "whole", {which: packed}), scratch)
    assert sum(isinstance(item, Account) for item in whole) > 0
    for turn in range(12):
        at = rng.randrange(len(packed))
        spoilt = packed[:at] if turn % 2 else packed[:at] + rng.randbytes(4) + packed[at + 4 :]
        _read(BY_NAME[name], _put(tmp_path / str(turn), {which: spoilt}), scratch)
    for spoilt in (GZIP, GZIP + b"\x08", GZIP + b"\xff" * 20, packed + b"rest", packed + GZIP):
        _read(BY_NAME[name], _put(tmp_path / "odd", {which: spoilt}), scratch)
