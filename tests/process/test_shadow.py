"""`xmppd migrate shadow` and the way back: both servers serve, and what changed goes where it must."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmppd import ns

USERS = 12
KEYS = {
    "sha1": {"salt": "c2FsdA==", "iterations": 4096, "stored": "A" * 26 + "A=", "server": "B" * 26 + "A="}
}

PASSWORD = "a secret of user0"

Accounts = dict[str, dict[str, Any]]


class Place:
    """A configuration in a folder, the program, and a source that can be written anew."""

    def __init__(self, folder: Path, name: str = "x", *, domains: str = "localhost, other.example") -> None:
        self.folder = folder
        self.data = folder / f"data-{name}"
        self.config = folder / f"{name}.yaml"
        self.source = folder / "source.jsonl"
        self.config.write_text(
            f"server: {{domains: [{domains}], data_folder: {self.data}}}\nauth: {{iterations: 4096}}\n"
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "xmppd", *words, "--config", str(self.config), "--json"]

    def run(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            self.command("migrate", *words), check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    def do(self, *words: str, given: str = "") -> None:
        done = subprocess.run(
            self.command(*words), check=False, input=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr

    def write(self, accounts: Accounts) -> None:
        text = "".join(json.dumps({"account": name, **row}) + "\n" for name, row in accounts.items())
        part = self.source.with_suffix(".part")
        part.write_text(text)
        part.replace(self.source)

    def round(self, *words: str, code: int = 0) -> dict[str, Any]:
        """One round of a shadow; its figures without those that are different each time."""
        done = self.run("shadow", str(self.source), "--once", "--create", *words, code=code)
        return {word: value for word, value in done["last round"].items() if word not in ("round", "seconds")}

    def exported(self, *words: str) -> tuple[Accounts, dict[str, Any]]:
        """What an export writes, and its summary."""
        target = self.folder / f"export-{random.random()}.jsonl"
        summary = self.run("export", str(target), *words)
        rows = map(json.loads, target.read_text().splitlines())
        return {row.pop("account"): row for row in rows}, summary

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command("migrate", "shadow", str(self.source), "--create", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def accounts_of(count: int = USERS, domain: str = "localhost") -> Accounts:
    found: Accounts = {}
    for number in range(count):
        friend = {"jid": f"user{(number + 1) % count}@{domain}", "subscription": "both", "name": "Friend"}
        found[f"user{number}@{domain}"] = {"keys": KEYS, "created": 1000.0, "roster": [friend]}
    found[f"user0@{domain}"]["vcard"] = "<vCard xmlns='vcard-temp'><FN>Zero</FN></vCard>"
    found[f"user0@{domain}"]["blocks"] = ["evil.example"]
    found[f"user0@{domain}"]["offline"] = [{"message": "<message from='a@b'><body>hi</body></message>"}]
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def accounts(place: Place) -> Accounts:
    found = accounts_of()
    place.write(found)
    return found


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def rounds(place: Place) -> list[dict[str, Any]]:
    lines = [line for file in place.data.glob("migrations/*/rounds.jsonl") for line in file.open()]
    return [json.loads(line) for line in lines]


@pytest.mark.own_engine
def test_what_changes_in_the_source_is_copied(place: Place, accounts: Accounts) -> None:
    assert place.round() == {"accounts": 12, "made": 12}
    assert place.round() == {"accounts": 12, "unchanged": 12}
    accounts["user3@localhost"]["roster"][0]["name"] = "Best friend"
    accounts["user4@localhost"]["disabled"] = True
    del accounts["user0@localhost"]["blocks"]
    accounts["new@localhost"] = {"keys": KEYS}
    place.write(accounts)
    assert place.round() == {"accounts": 13, "changed": 3, "made": 1, "unchanged": 9}
    found, _ = place.exported()
    assert found["user3@localhost"]["roster"][0]["name"] == "Best friend"
    assert found["user4@localhost"]["disabled"]
    assert "blocks" not in found["user0@localhost"]
    assert "new@localhost" in found


@pytest.mark.own_engine
def test_a_password_in_plain_is_given_once(place: Place, accounts: Accounts) -> None:
    for row in accounts.values():
        del row["keys"]
        row["password"] = "told to nobody"
    place.write(accounts)
    shadow = place.start("--every", "0.1")
    wait_for(lambda: len(rounds(place)) >= 2)
    accounts["user7@localhost"]["password"] = "another one"
    place.write(accounts)
    wait_for(lambda: any(it.get("changed") for it in rounds(place)))
    shadow.send_signal(signal.SIGINT)
    assert shadow.communicate(timeout=60)[0]
    assert shadow.returncode == 0
    assert [it.get("changed", 0) + it.get("made", 0) for it in rounds(place) if "unchanged" not in it] == [12]
    assert sum(it.get("changed", 0) for it in rounds(place)) == 1
    kept = b"".join(file.read_bytes() for file in place.data.rglob("*") if file.is_file())
    assert b"told to nobody" not in kept


@pytest.mark.own_engine
def test_an_account_that_was_removed_here_comes_back_with_its_password(
    place: Place, accounts: Accounts
) -> None:
    accounts["user1@localhost"] = {"password": "a secret"}
    place.write(accounts)
    shadow = place.start("--every", "0.5")
    wait_for(lambda: len(rounds(place)) >= 1)
    place.do("user", "remove", "user1@localhost", "--yes")
    wait_for(lambda: sum(it.get("made", 0) for it in rounds(place)) == 13)
    shadow.terminate()
    shadow.communicate(timeout=60)
    assert sorted(place.exported()[0]["user1@localhost"]["keys"]) == ["sha1", "sha256"]


@pytest.mark.own_engine
def test_what_both_changed_is_a_conflict_and_the_source_wins(place: Place, accounts: Accounts) -> None:
    place.round()
    place.do("user", "passwd", "user1@localhost", "--password-stdin", given="new and secret\n")
    place.do("user", "passwd", "user2@localhost", "--password-stdin", given="new and secret\n")
    assert place.round() == {"accounts": 12, "changed here": 2, "unchanged": 12}
    accounts["user1@localhost"]["keys"] = {"sha1": {**KEYS["sha1"], "iterations": 5000}}
    place.write(accounts)
    figures = place.round()
    assert figures == {
        "accounts": 12,
        "changed": 1,
        "changed here": 2,
        "conflicts": 1,
        "unchanged": 11,
        "first conflicts": ["user1@localhost: keys"],
    }
    assert place.exported()[0]["user1@localhost"]["keys"]["sha1"]["iterations"] == 5000
    assert place.round() == {"accounts": 12, "changed here": 1, "unchanged": 12}


@pytest.mark.own_engine
def test_who_was_switched_is_left_alone(place: Place, accounts: Accounts) -> None:
    accounts |= accounts_of(4, "other.example")
    place.write(accounts)
    assert place.round()["made"] == 16
    assert place.run("switch", "Other.Example", "user1@localhost") == ["other.example", "user1@localhost"]
    more = place.folder / "more.txt"
    more.write_text("# by hand\nuser2@localhost  # asked for it\n\n")
    for row in accounts.values():
        row["roster"] = []
    place.write(accounts)
    assert place.round("--switched", str(more)) == {"accounts": 16, "changed": 10, "left alone": 6}
    found, _ = place.exported()
    still = {"user1@localhost", "user2@localhost", *accounts_of(4, "other.example")}
    assert {name for name, row in found.items() if row.get("roster")} == still
    assert place.run("switch", "user1@localhost", "--back") == ["other.example"]
    assert place.run("switch") == ["other.example"]
    assert place.round("--switched", str(more))["left alone"] == 5


@pytest.mark.own_engine
def test_a_switch_counts_while_a_round_is_under_way(place: Place) -> None:
    accounts = accounts_of(600)
    place.write(accounts)
    shadow = place.start("--rate", "100")
    wait_for(lambda: any(place.data.glob("migrations/*/changes.jsonl")))
    place.run("switch", "user599@localhost")
    wait_for(lambda: bool(rounds(place)))
    shadow.terminate()
    shadow.communicate(timeout=60)
    assert rounds(place)[0]["left alone"] == 1


@pytest.mark.own_engine
def test_what_is_gone_in_the_source_is_told_and_stays(place: Place, accounts: Accounts) -> None:
    place.round()
    del accounts["user5@localhost"]
    place.write(accounts)
    assert place.round() == {
        "accounts": 11,
        "unchanged": 11,
        "gone there": 1,
        "first gone there": ["user5@localhost"],
    }
    assert "user5@localhost" in place.exported()[0]
    place.run("switch", "user5@localhost")
    assert place.round() == {"accounts": 11, "unchanged": 11}


@pytest.mark.own_engine
def test_a_round_that_fails_is_tried_again(place: Place, accounts: Accounts) -> None:
    shadow = place.start("--every", "0.1")
    wait_for(lambda: bool(rounds(place)))
    place.source.write_text("no source at all")
    assert shadow.stderr is not None
    failed = next(line for line in shadow.stderr if "source.jsonl" in line)
    before = len(rounds(place))
    place.write(accounts)
    wait_for(lambda: len(rounds(place)) > before)
    shadow.terminate()
    out, _ = shadow.communicate(timeout=60)
    assert json.loads(out)["failed rounds"] > 0
    assert failed
    assert "nothing.jsonl" in place.run("shadow", str(place.folder / "nothing.jsonl"), code=1)


@pytest.mark.own_engine
def test_there_is_one_shadow_at_a_time(place: Place, accounts: Accounts) -> None:
    shadow = place.start("--every", "100")
    wait_for(lambda: bool(rounds(place)))
    assert "another shadow" in place.run("shadow", str(place.source), "--once", code=1)
    os.kill(shadow.pid, signal.SIGKILL)
    shadow.communicate(timeout=60)
    assert place.round()["unchanged"] == 12


@pytest.mark.own_engine
def test_it_can_be_ended_in_a_round(place: Place) -> None:
    place.write(accounts_of(1000))
    shadow = place.start("--rate", "100")
    wait_for(lambda: any(place.data.glob("migrations/*/changes.jsonl")))
    shadow.terminate()
    summary = json.loads(shadow.communicate(timeout=60)[0])
    assert summary["last round"]["broken off"]
    assert summary["last round"]["made"] < 1000
    assert "gone there" not in summary["last round"]
    assert place.round()["accounts"] == 1000


@pytest.mark.own_engine
def test_mistakes_are_told(place: Place, accounts: Accounts) -> None:
    names = place.folder / "names.txt"
    names.write_text("user1@localhost\nuser1@localhost/phone\n")
    assert "names.txt:2" in place.run(
        "shadow", str(place.source), "--create", "--switched", str(names), code=1
    )
    assert "address" in place.run("switch", "a@b@c@", "--create", code=2)
    assert "every" in place.run("shadow", str(place.source), "--every", "0", code=2)
    accounts["i♥chess@localhost"] = {"keys": KEYS}
    place.write(accounts)
    assert place.round(code=1)["refused"] == 1


@pytest.mark.own_engine
def test_the_password_of_a_database_is_nowhere_kept(place: Place) -> None:
    said = place.run("shadow", "postgresql://me:s3cret@127.0.0.1:1/chat", "--once", "--create", code=1)
    assert "s3cret" not in said
    (kept,) = place.data.glob("migrations/*/run.json")
    assert json.loads(kept.read_text())["source"] == "postgresql://me@127.0.0.1:1/chat"
    assert not [file for file in place.data.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]


@pytest.mark.own_engine
def test_what_must_go_back(place: Place, accounts: Accounts) -> None:
    place.run("import", str(place.source), "--create")
    assert place.exported("--changed")[0] == {}
    since = "2020-01-01"
    assert place.exported("--changed-since", since)[0] == {}
    place.do("user", "passwd", "user1@localhost", "--password-stdin", given="new and secret\n")
    place.do("roster", "add", "user2@localhost", "friend@localhost")
    place.do("user", "remove", "user3@localhost", "--yes")
    place.do("user", "disable", "user4@localhost")
    place.do("user", "add", "made@localhost", "--password-stdin", given="new and secret\n")
    found, summary = place.exported("--changed")
    changed = ["made@localhost", *(f"user{number}@localhost" for number in (1, 2, 4))]
    assert sorted(found) == changed
    assert (summary["removed here"], summary["first removed"]) == (1, ["user3@localhost"])
    assert Path(summary["removed are listed in"]).read_text() == "user3@localhost\n"
    assert sorted(place.exported("--changed-since", since)[0]) == changed
    found, _ = place.exported("--changed-since", "2100-01-01")
    assert sorted(found) == [name for name in changed if name != "user2@localhost"]
    assert "removed here" not in place.exported()[1]


@pytest.mark.own_engine
def test_going_back_and_coming_again(place: Place, accounts: Accounts) -> None:
    """What goes back is what a server there makes of it: here the same, in another folder."""
    other = Place(place.folder, "other")
    place.run("import", str(place.source), "--create")
    other.run("import", str(place.source), "--create")
    place.do("roster", "add", "user2@localhost", "friend@localhost")
    target = place.folder / "back.jsonl"
    place.run("export", str(target), "--changed")
    assert other.run("import", str(target), "--conflict", "replace")["changed"] == 1
    assert other.exported()[0] == place.exported()[0]


@pytest.mark.own_engine
def test_a_shadow_can_be_undone(place: Place, accounts: Accounts) -> None:
    accounts["user9@localhost"]["roster"] = []
    place.write(accounts)
    place.run("import", str(place.source), "--create")
    before = place.exported()[0]
    accounts["new@localhost"] = {"keys": KEYS}
    shadow = place.start("--every", "0.1")
    wait_for(lambda: bool(rounds(place)))
    for number in range(1, 4):
        accounts["user9@localhost"] |= {
            "roster": [{"jid": f"friend{number}@localhost"}],
            "disabled": number == 2,
        }
        accounts["new@localhost"]["blocks"] = [f"evil{number}.example"]
        place.write(accounts)
        done = len(rounds(place))
        wait_for(lambda done=done: len(rounds(place)) >= done + 2)  # type: ignore[misc]
    shadow.terminate()
    run = json.loads(shadow.communicate(timeout=60)[0])["run"]
    assert place.exported()[0]["new@localhost"]["blocks"] == ["evil3.example"]
    assert place.run("undo", run)["kept"] == 0
    assert place.exported()[0] == before


@pytest.mark.asyncio
async def test_a_running_server_is_shadowed_into(prepared: Any, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    accounts = accounts_of()
    accounts["user0@localhost"] |= {"keys": {}, "password": PASSWORD}

    def write() -> None:
        text = "".join(json.dumps({"account": name, **row}) + "\n" for name, row in accounts.items())
        source.with_suffix(".part").write_text(text)
        source.with_suffix(".part").replace(source)

    write()
    server = prepared()
    await server.start()
    command = [sys.executable, "-m", "xmppd", "migrate", "shadow", str(source), "--every", "0.1", "--live"]
    process = await asyncio.create_subprocess_exec(
        *command, "--config", str(server.file), "--json", cwd=server.folder, stdout=asyncio.subprocess.PIPE
    )
    await asyncio.to_thread(wait_for, lambda: any(server.folder.glob("data/migrations/*/rounds.jsonl")))
    client = await server.connect()
    await client.open()
    assert (await client.authenticate("user0", PASSWORD)).tag == f"{{{ns.SASL}}}success"
    await client.open()
    await client.ask("set", f"<bind xmlns='{ns.BIND}'/>")
    await client.roster()
    accounts["user0@localhost"]["roster"].append({"jid": "new@localhost", "name": "New"})
    write()
    pushed = await client.receive("iq")
    assert pushed[0][0].get("jid") == "new@localhost"
    process.terminate()
    out, _ = await process.communicate()
    assert json.loads(out)["in all"] == {"made": 12, "changed": 1, "conflicts": 0}
