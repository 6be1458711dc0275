#!/usr/bin/env python3
"""seed DATADIR PORT DOMAIN N RINGS: accounts and rosters in Prosody's storage; it must not run.

RINGS is first:count:contacts,... as in `scripts/bench/seed`. AUTH=internal_hashed in the environment stores
SCRAM-SHA-1 keys (4096 iterations, one salt for all) instead of the password `secret`.
"""

import hashlib
import hmac
import os
import sys
from pathlib import Path

SALT = b"one-salt-for-all"
ITEM = """\t["user{n}@{domain}"] = {{
\t\t["groups"] = {{
\t\t\t["**Default"] = true;
\t\t}};
\t\t["subscription"] = "both";
\t\t["name"] = "Summoner {n}";
\t}};
"""


def account(*, hashed: bool) -> str:
    """The file of any account."""
    fields = {"password": '"secret"'}
    if hashed:
        salted = hashlib.pbkdf2_hmac("sha1", b"secret", SALT, 4096)
        stored = hashlib.sha1(hmac.digest(salted, b"Client Key", "sha1")).hexdigest()
        server = hmac.digest(salted, b"Server Key", "sha1").hex()
        fields = {
            "iteration_count": "4096",
            "salt": f'"{SALT.decode()}"',
            "stored_key": f'"{stored}"',
            "server_key": f'"{server}"',
        }
    return "return {\n" + "".join(f'\t["{key}"] = {value};\n' for key, value in fields.items()) + "};\n"


def roster(domain: str, contacts: list[int]) -> str:
    """The file of one roster."""
    items = "".join(ITEM.format(n=n, domain=domain) for n in contacts)
    return 'return {\n\t[false] = {\n\t\t["version"] = 1;\n\t};\n' + items + "};\n"


def main() -> None:
    """The command line."""
    data, _, domain, count, rings = sys.argv[1:]
    host = "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in domain)
    accounts, rosters = (Path(data, "data", host, folder) for folder in ("accounts", "roster"))
    accounts.mkdir(parents=True, exist_ok=True)
    rosters.mkdir(parents=True, exist_ok=True)
    text = account(hashed=os.environ.get("AUTH") == "internal_hashed")
    for number in range(int(count)):
        (accounts / f"user{number}.dat").write_text(text)
    for ring in filter(None, rings.split(",")):
        first, size, contacts = map(int, ring.split(":"))
        for number in range(size):
            near = range(1, contacts // 2 + 1)
            others = [first + (number + step) % size for distance in near for step in (distance, -distance)]
            (rosters / f"user{first + number}.dat").write_text(roster(domain, others))


if __name__ == "__main__":
    main()
