"""`xmppd migrate rehearse`: people's logins, with a server of its own and with the one that runs."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmppd.errors import CommandError
from xmppd.migrating.rehearsal import read_passwords, sampled
from xmppd.migrating.rehearsal_client import LoginFailed, ScramExchange

WORD = "a secret wörd"
SALT = b"salt of it"
Run = Callable[..., Any]
Rows = list[dict[str, Any]]


def keys_of(word: str, name: str) -> dict[str, Any]:
    salted = hashlib.pbkdf2_hmac(name, word.encode(), SALT, 4096)
    stored = hashlib.new(name, hmac.digest(salted, b"Client Key", name)).digest()
    found = {"salt": SALT, "stored": stored, "server": hmac.digest(salted, b"Server Key", name)}
    return {"iterations": 4096, **{key: base64.b64encode(value).decode() for key, value in found.items()}}


def rows() -> Rows:
    """The first has everything; the others log in with keys of one hash each."""
    return [
        {
            "account": "anna@localhost",
            "password": WORD,
            "roster": [
                {"jid": "bob@localhost", "subscription": "both", "name": "B & B", "groups": ["x", "a"]},
                {"jid": "carl@localhost", "subscription": "to", "ask": False},
                {"jid": "dora@localhost", "ask": True},
                {"jid": "emil@localhost", "pending": True, "listed": False},
            ],
            "vcard": "<vCard xmlns='vcard-temp'><FN>Anna</FN><N><GIVEN>A</GIVEN></N></vCard>",
            "private": ["<storage xmlns='storage:bookmarks'><conference jid='room@x'/></storage>"],
            "offline": [{"message": "<message from='a@b'><body>hi</body></message>", "at": 1000.0}],
        },
        {"account": "bob@localhost", "keys": {"sha1": keys_of(WORD, "sha1")}},
        {"account": "carl@localhost", "keys": {"sha384": keys_of(WORD, "sha384")}},
        {"account": "dora@localhost", "password": WORD, "disabled": True},
    ]


def write(file: Path, accounts: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in accounts))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The program on an installation with all accounts, with a file of all their passwords."""
    config = tmp_path / "x.yaml"
    plugins = "plugins: {enabled: [vcard, private, offline]}\n"
    server = f"server: {{domains: [localhost], data_folder: {tmp_path / 'data'}}}\n"
    config.write_text(f"{server}{plugins}auth: {{iterations: 4096}}\n")
    source = tmp_path / "source.jsonl"
    write(source, rows())
    names = [row["account"] for row in rows()]
    (tmp_path / "passwords.csv").write_text("".join(f"{name},{WORD}\n" for name in names))

    def call(name: str, *words: str, code: int = 0) -> Any:
        more = ["--passwords", str(tmp_path / "passwords.csv")] if name == "rehearse" else []
        command = [sys.executable, "-m", "xmppd", "migrate", name, *words, *more]
        done = subprocess.run(
            [*command, "--config", str(config), "--json"], check=False, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    call("import", str(source), "--create")
    return call


@pytest.mark.own_engine
def test_people_see_what_the_source_has(run: Run, tmp_path: Path) -> None:
    source = str(tmp_path / "source.jsonl")
    figures = {"accounts": 4, "same": 4, "PLAIN": 3, "SCRAM-SHA-256": 1, "SCRAM-SHA-1": 1}
    assert run("rehearse", source) == {**figures, "only PLAIN": 1, "disabled": 1}
    target = tmp_path / "after.jsonl"
    run("export", str(target))
    after = {row["account"]: row for row in map(json.loads, target.read_text().splitlines())}
    assert len(after["anna@localhost"]["offline"]) == 1
    contacts = {item["jid"]: item for item in after["anna@localhost"]["roster"]}
    assert contacts["emil@localhost"]["pending"]


@pytest.mark.own_engine
def test_every_difference_is_told(run: Run, tmp_path: Path) -> None:
    other = rows()
    other[0]["roster"][0]["groups"] = ["x"]
    del other[0]["roster"][3]
    other[0]["vcard"] = other[0]["vcard"].replace("Anna", "Anne")
    other[0]["private"] = ["<storage xmlns='storage:bookmarks'/>", "<more xmlns='urn:more'>1</more>"]
    other[3]["disabled"] = False
    other.append({"account": "emil@localhost", "password": WORD})
    write(tmp_path / "other.jsonl", other)
    with (tmp_path / "passwords.csv").open("a") as file:
        file.write(f"emil@localhost,{WORD}\nnobody@localhost,x\n")
    report = tmp_path / "report.jsonl"
    done = run("rehearse", str(tmp_path / "other.jsonl"), "--report", str(report), code=1)
    found = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted((row["account"], row["what"], row.get("of", "")) for row in found) == [
        ("anna@localhost", "contact", "bob@localhost"),
        ("anna@localhost", "private", "{storage:bookmarks}storage"),
        ("anna@localhost", "private", "{urn:more}more"),
        ("anna@localhost", "request", "emil@localhost"),
        ("anna@localhost", "vcard", ""),
        ("dora@localhost", "login by PLAIN", ""),
        ("dora@localhost", "login by SCRAM", ""),
        ("emil@localhost", "login by PLAIN", ""),
        ("emil@localhost", "login by SCRAM", ""),
        ("nobody@localhost", "account", ""),
    ]
    assert (done["accounts"], done["differ"], done["same"]) == (5, 3, 2)
    assert WORD not in report.read_text()


@pytest.mark.own_engine
def test_a_wrong_password_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "passwords.csv").write_text("account,password\nbob@localhost,wrong\n")
    done = run("rehearse", str(tmp_path / "source.jsonl"), code=1)
    assert [row["what"] for row in done["first differences"]] == ["login by SCRAM", "login by PLAIN"]
    assert done["first differences"][0]["here"] == "not-authorized"


@pytest.mark.own_engine
def test_who_was_to_be_disabled_is_told(run: Run, tmp_path: Path) -> None:
    off = rows()
    off[1]["disabled"] = True
    write(tmp_path / "source.jsonl", off)
    (tmp_path / "passwords.csv").write_text(f"bob@localhost,{WORD}\n")
    done = run("rehearse", str(tmp_path / "source.jsonl"), code=1)
    assert [row["what"] for row in done["first differences"]] == ["disabled"]


@pytest.mark.own_engine
def test_a_server_that_does_not_start_is_told(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "x.yaml"
    config.write_text(config.read_text().replace("vcard, private", "nonesuch, private"))
    assert "did not start" in run("rehearse", str(tmp_path / "source.jsonl"), code=1)


@pytest.mark.asyncio
@pytest.mark.parametrize("tls", ["starttls", "direct", "none"])
async def test_with_a_server_that_runs(prepared: Any, tmp_path: Path, tls: str) -> None:
    source, passwords = tmp_path / "source.jsonl", tmp_path / "passwords.csv"
    write(source, rows())
    passwords.write_text(f"anna@localhost,{WORD}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = prepared(
        plugins={"enabled": ["vcard", "private", "offline"]}, listen={"c2s": [{"port": port, "tls": tls}]}
    )
    await server.start()

    def run(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "xmppd", "migrate", *words, "--config", str(server.file), "--json"],
            check=False,
            cwd=server.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    await asyncio.to_thread(run, "import", str(source))
    done = await asyncio.to_thread(run, "rehearse", str(source), "--passwords", str(passwords))
    assert done == {"accounts": 1, "same": 1, "PLAIN": 1, "SCRAM-SHA-256": 1}


@pytest.mark.own_engine
def test_passwords_are_a_table(tmp_path: Path) -> None:
    file = tmp_path / "passwords.csv"
    file.write_text('\ufeffaccount,password\n"a@b","x,""y"""\n\nc@d, z\n', encoding="utf-8")
    assert read_passwords(file) == {"a@b": 'x,"y"', "c@d": " z"}
    for text, problem in (("a@b\n", "csv:1"), ("a@b,\n", "csv:1"), ("", "no account"), ('a,"b', "csv")):
        file.write_text(text)
        with pytest.raises(CommandError, match=problem):
            read_passwords(file)
    with pytest.raises(CommandError, match="nothing"):
        read_passwords(tmp_path / "nothing.csv")


@pytest.mark.own_engine
def test_a_sample_is_the_same_for_the_same_seed() -> None:
    names = [f"user{number}" for number in range(100)]
    assert sampled(names, 10, 1) == sampled(names[::-1], 10, 1) != sampled(names, 10, 2)
    assert len(sampled(names, 10, 1)) == 10
    assert sampled(names, None, 0) == sampled(names, 1000, 0) == sorted(names)


@pytest.mark.own_engine
@pytest.mark.parametrize(
    ("algorithm", "nonce", "challenge", "proof", "signature"),
    [
        (  # RFC 5802 5
            "sha1",
            "fyko+d2lbbFgONRv9qkxdawL",
            b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            b"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (  # RFC 7677 3
            "sha256",
            "rOprNGfwEbeRWgbNEkqO",
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ],
)
def test_the_client_proves_by_the_letter(
    algorithm: str, nonce: str, challenge: bytes, proof: bytes, signature: bytes
) -> None:
    exchange = ScramExchange("user", "pencil", algorithm, nonce)
    assert exchange.first == f"n,,n=user,r={nonce}".encode()
    assert exchange.answer(challenge).endswith(b",p=" + proof)
    assert exchange.is_signed(signature)
    assert not exchange.is_signed(signature.replace(b"v=r", b"v=s").replace(b"v=6", b"v=7"))
    assert not exchange.is_signed(b"v=?")


@pytest.mark.own_engine
@pytest.mark.parametrize(
    "challenge",
    [b"r=other,s=QSXC,i=4096", b"r=mine1,s=QSXC", b"r=mine1,s=?,i=1", b"r=mine1,s=QSXC,i=99999999", b"\xff"],
)
def test_a_server_that_is_no_scram_is_refused(challenge: bytes) -> None:
    with pytest.raises(LoginFailed):
        ScramExchange("user", "pencil", "sha1", "mine").answer(challenge)


@pytest.mark.own_engine
def test_names_are_escaped() -> None:
    assert ScramExchange("a=b,c", "x", "sha1", "n").first == b"n,,n=a=3Db=2Cc,r=n"
