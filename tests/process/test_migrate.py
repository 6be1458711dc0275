"""`xmppd migrate` as operators run it: with a server and without, killed and resumed, and back again."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xmppd import ns

ACCOUNTS = 1500
KILLS = int(os.environ.get("XMPPD_TEST_KILLS", "4"))
LATEST_KILL = 4.5
"""Seconds after its start."""
PASSWORD = "pässword ﬁsh"


def roster(number: int, accounts: int) -> list[dict[str, Any]]:
    return [
        {
            "jid": f"user{(number + step) % accounts}@localhost",
            "subscription": ("both", "to", "from", "none")[step % 4],
            "name": f"Friend {step}",
            "groups": [f"g{step % 3}"],
        }
        for step in range(1, 6)
    ]


def write_source(path: Path, accounts: int, *, plain: bool = True) -> None:
    """Accounts with keys of SHA-1 and a few contacts; the first has more, and its password in plain."""
    keys = {"salt": "c2FsdA==", "iterations": 4096, "stored": "A" * 26 + "A=", "server": "B" * 26 + "A="}
    with path.open("w", encoding="utf-8") as file:
        for number in range(accounts):
            row: dict[str, Any] = {"account": f"user{number}@localhost", "created": 1000.0 + number}
            row["roster"] = roster(number, accounts)
            row |= {"password": PASSWORD} if number == 0 and plain else {"keys": {"sha1": keys}}
            if number == 0:
                row["vcard"] = "<vCard xmlns='vcard-temp'><FN>Zero</FN></vCard>"
                row["offline"] = [{"message": "<message from='a@b'><body>hi</body></message>", "at": 1000.0}]
                row["blocks"] = ["evil.example"]
            file.write(json.dumps(row) + "\n")


class Place:
    """A configuration in a folder, and the program."""

    def __init__(self, folder: Path, name: str = "x") -> None:
        self.folder = folder
        self.data = folder / f"data-{name}"
        self.config = folder / f"{name}.yaml"
        self.config.write_text(
            f"server: {{domains: [localhost], data_folder: {self.data}}}\nauth: {{iterations: 4096}}\n"
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "xmppd", "migrate", *words, "--config", str(self.config), "--json"]

    def run(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(self.command(*words), check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    def exported(self) -> list[dict[str, Any]]:
        target = self.folder / f"export-{random.random()}.jsonl"
        self.run("export", str(target))
        return sorted(map(json.loads, target.read_text().splitlines()), key=lambda row: str(row["account"]))

    def report(self, run: str) -> list[dict[str, Any]]:
        path = self.data / "migrations" / run / "report.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.own_engine
def test_there_and_back_again(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    write_source(source, 40)
    dry = place.run("import", str(source), "--dry-run", "--create")
    assert (dry["accounts"], dry["made"], dry["contacts"]) == (40, 40, 200)
    assert place.exported() == []
    done = place.run("import", str(source))
    assert (done["accounts"], done["made"], done["lost"]) == (40, 40, {})
    checked = place.run("verify", str(source))
    assert (checked["accounts"], checked["same"]) == (40, 40)
    assert place.run("verify", str(source))["same as before"] == 40
    again = place.run("import", str(source))
    assert again["kept"] == 40
    first = place.exported()[0]
    assert (first["account"], sorted(first["keys"]), first["blocks"]) == (
        "user0@localhost",
        ["sha1", "sha256"],
        ["evil.example"],
    )
    assert "password" not in first
    other = Place(tmp_path, "other")
    target = tmp_path / "back.jsonl"
    place.run("export", str(target))
    assert other.run("import", str(target), "--create")["made"] == 40
    assert other.exported() == place.exported()
    runs = place.run("runs")
    assert runs == [{"run": done["run"], "done": 40}]
    undone = place.run("undo", done["run"])
    assert (undone["accounts"], undone["kept"]) == (40, 0)
    assert place.exported() == []


@pytest.mark.own_engine
def test_a_difference_is_found(place: Place, tmp_path: Path) -> None:
    source, other = tmp_path / "source.jsonl", tmp_path / "other.jsonl"
    write_source(source, 10)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    place.run("import", str(source), "--create")
    del rows[3]["roster"][0]
    rows[4]["roster"][0]["name"] = "Somebody else"
    rows[5]["roster"].append({"jid": "new@localhost"})
    rows[6]["keys"]["sha1"]["salt"] = "c2FsdHk="
    rows.append({"account": "more@localhost"})
    del rows[9]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tmp_path / "report.jsonl"
    summary = place.run("verify", str(other), "--report", str(report), code=1)
    found = sorted(
        (row["account"], row["what"], row.get("of", ""), row.get("field", ""))
        for row in map(json.loads, report.read_text().splitlines())
    )
    halves = [(account, of) for account, what, of, _ in found if what == "one-sided"]
    assert [row for row in found if row[1] != "one-sided"] == [
        ("more@localhost", "account", "", ""),
        ("user3@localhost", "contact", "user4@localhost", ""),
        ("user4@localhost", "contact", "user5@localhost", "name"),
        ("user5@localhost", "contact", "new@localhost", ""),
        ("user6@localhost", "keys", "", ""),
        ("user9@localhost", "account", "", ""),
    ]
    assert summary["differences"] == 6
    halves.remove(("user3@localhost", "user4@localhost"))
    assert len(halves) == 5
    assert all("user9@localhost" in pair for pair in halves)
    figures = {name: count for name, count in summary.items() if name.startswith("one-sided")}
    assert figures == {
        "one-sided in the source": 44,
        "one-sided here": 50,
        "one-sided in only one": 6,
    }


@pytest.mark.own_engine
def test_what_is_refused_is_in_the_report(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    rows = [
        {"account": "i♥chess@localhost", "password": "x"},
        {"account": "anna@localhost", "roster": [{"jid": "i♥chess@localhost", "subscription": "both"}]},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = place.run("import", str(source), "--create", code=1)
    assert (done["made"], done["refused"]) == (1, 1)
    assert done["notes"] == {"contact-refused": 1, "must-reset": 1, "refused": 1}
    lines = place.report(done["run"])
    assert [line["done"] for line in lines] == ["refused", "made"]
    assert (place.data / "migrations" / done["run"] / "must-reset.txt").read_text() == "anna@localhost\n"
    mapped = tmp_path / "map.csv"
    mapped.write_text("i♥chess@localhost,ichess@localhost\n")
    done = place.run("import", str(source), "--map", str(mapped), "--conflict", "merge")
    assert (done["made"], done["changed"]) == (1, 1)
    assert place.exported()[0]["roster"] == [{"jid": "ichess@localhost", "subscription": "both"}]


@pytest.mark.own_engine
def test_a_file_of_ones_own(place: Place, tmp_path: Path) -> None:
    source, scratch = tmp_path / "friends.csv", tmp_path / "scratch"
    scratch.mkdir()
    source.write_text(
        "player,friend,state,level\nanna,bob@localhost,both,7\nzoe,anna@localhost,both,9\nanna,zoe@localhost,both,7\n"
    )
    words = ("--columns", "account=player", "--columns", "contact=friend", "--columns", "subscription=state")
    words += ("--columns", "=level", "--domain", "localhost", "--scratch", str(scratch))
    done = place.run("import", str(source), *words, "--create")
    assert (done["made"], done["contacts"]) == (2, 3)
    assert place.run("verify", str(source), *words)["same"] == 2
    assert list(scratch.iterdir()) == []
    assert [len(row["roster"]) for row in place.exported()] == [2, 1]
    assert "columns" in place.run("import", str(source), "--domain", "localhost", "--format", "csv", code=1)
    assert "nowhere" in place.run("import", str(source), *words[:-1], str(tmp_path / "nowhere"), code=1)


@pytest.mark.own_engine
def test_what_did_not_change_is_left_out(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    rows = [{"account": f"{name}@localhost", "modified": at} for name, at in (("a", 1000.0), ("b", 2000.0))]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"account": "c@localhost"}]))
    place.run("import", str(source), "--since", "1970-01-01T00:20:00Z", "--create")
    assert [row["account"] for row in place.exported()] == ["b@localhost", "c@localhost"]


@pytest.mark.own_engine
def test_mistakes_are_one_sentence(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text('{"account": "a@localhost"}\n{"account": 5}\n')
    done = place.run("import", str(source), "--create", code=1)
    assert (done["made"], done["unreadable"]) == (1, 1)
    assert "source.jsonl:2" in place.report(done["run"])[1]["where"]
    source.write_text("neither this nor that")
    assert "source.jsonl" in place.run("import", str(source), code=1)
    assert "nothing.jsonl" in place.run("import", str(tmp_path / "nothing.jsonl"), code=1)
    write_source(source, 2)
    assert "keep" in place.run("import", str(source), "--conflict", "crush", code=2)
    assert "no run" in place.run("import", str(source), "--resume", "never", code=1)


@pytest.mark.own_engine
def test_a_killed_run_is_gone_on_with(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    write_source(source, ACCOUNTS, plain=False)
    calm = Place(tmp_path, "calm")
    undisturbed = calm.run("import", str(source), "--create")
    rng = random.Random(5)
    run, kills = "", 0
    while True:
        words = ["import", str(source), *(("--resume", run) if run else ("--create",))]
        if kills < KILLS:
            words += [
                "--rate",
                str(ACCOUNTS / KILLS / LATEST_KILL),
            ]  # so that there is something to kill each time
        process = subprocess.Popen(
            place.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            out, _ = process.communicate(timeout=rng.uniform(1.2, LATEST_KILL) if kills < KILLS else 120)
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            started = sorted((place.data / "migrations").glob("*/run.json"))
            run = started[0].parent.name if started else ""
    done = json.loads(out)
    assert kills == KILLS
    assert {**done, "run": "", "report": ""} == {**undisturbed, "run": "", "report": ""}
    assert place.report(done["run"]) == calm.report(undisturbed["run"])
    assert place.exported() == calm.exported()
    assert place.run("verify", str(source))["same"] == ACCOUNTS


@pytest.mark.asyncio
async def test_a_running_server_takes_accounts_in(prepared: Any, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    write_source(source, 30)
    server = prepared(plugins={"enabled": ["vcard", "offline", "ping"]})
    await server.start()

    async def run(*words: str) -> Any:
        command = [sys.executable, "-m", "xmppd", "migrate", *words, "--config", str(server.file), "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=server.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err
        return json.loads(out)

    done = await run("import", str(source))
    assert done["made"] == 30
    client = await server.connect()
    await client.open()
    answer = await client.authenticate("user0", PASSWORD)
    assert answer.tag == f"{{{ns.SASL}}}success"
    await client.open()
    await client.ask("set", f"<bind xmlns='{ns.BIND}'/>")
    found = await client.ask("get", f"<query xmlns='{ns.ROSTER}'/>")
    assert [item.get("jid") for item in found[0]] == [f"user{number}@localhost" for number in range(1, 6)]
    client.write("<presence/>")
    assert (await client.receive("message")).findtext(f"{{{ns.CLIENT}}}body") == "hi"
    verified = await run("verify", str(source), "--only", "user1@localhost")
    assert verified["same"] == 1
