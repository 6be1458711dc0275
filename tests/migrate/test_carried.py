"""The table of what each format carries, in docs/migration.md, is what the readers find in the samples.

`XMPPD_WRITE_TABLES=1 scripts/test tests/migrate/test_carried.py` writes it anew.
"""

import os
from pathlib import Path

import pytest
from carried import EXPORTS, FIELDS, Tally, is_prepared, table, verdicts_of

DOCUMENT = Path(__file__).parents[2] / "docs/migration.md"
HEADING = "## What each format carries\n"


def test_the_table_in_the_documentation_is_true(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    before, heading, rest = text.partition(HEADING)
    assert heading, "docs/migration.md has no such heading"
    start = rest.index("| format |")
    end = rest.find("\n\n", start) + 1 or len(rest)
    found = table(tmp_path)
    if os.environ.get("XMPPD_WRITE_TABLES"):
        DOCUMENT.write_text(before + heading + rest[:start] + found + rest[end:])
    else:
        assert rest[start:end] == found


FULL = ["Prosody, data folder", "Prosody, SQL", "ejabberd, `dump`", "ejabberd, SQL"]


@pytest.mark.parametrize("name", FULL)
def test_the_full_exports_lose_neither_accounts_nor_passwords_nor_requests(name: str, tmp_path: Path) -> None:
    [sample] = [sample for sample in EXPORTS if sample.name == name]
    found = verdicts_of(sample, tmp_path)
    wanted = ("accounts", "passwords", "requests", "private XML", "messages")
    assert {field: str(found[field]) for field in wanted} == dict.fromkeys(wanted, "yes")
    assert found.keys() == set(FIELDS)


def test_verdicts() -> None:
    tally = Tally()
    assert str(tally) == ""
    tally.total = 3
    assert str(tally) == "yes"
    tally.count("another")
    assert str(tally) == "yes, 1 changed"
    tally.count(None)
    assert str(tally) == "2 of 3, 1 changed"
    tally.lost = 3
    assert str(tally) == "no"
    assert is_prepared({"expected": "ﬁsh\xad", "found": "fish"})
    assert not is_prepared({"expected": "fish", "found": "fisch"})
