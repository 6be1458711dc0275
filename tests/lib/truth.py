"""What an export should say, against what a reader found, in the words of `differences.jsonl`."""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.migrate.fragments import element_of
from xmppd.migrate.record import Account, Contact, Keys, Unreadable

SAMPLES = Path(__file__).parent.parent / "migrate" / "samples"
TRUTH = SAMPLES / "expected.jsonl"

Difference = dict[str, Any]


def truth(path: Path = TRUTH) -> dict[str, dict[str, Any]]:
    """What was filled into each account, by its name."""
    return {row["account"]: row for row in map(json.loads, _lines(path))}


def _lines(path: Path) -> list[str]:
    """The lines of a file, ended by \\n alone: names in it may hold U+0085 or U+2028."""
    return path.read_text(encoding="utf-8").rstrip("\n").split("\n")


def unpacked(folder: Path, target: Path) -> Path:
    """A sample's folder of documents as it was, made of its `documents.jsonl`: no file of a package may have
    such names.
    """
    target.mkdir()
    for row in map(json.loads, _lines(folder / "documents.jsonl")):
        (target / row["file"]).write_bytes(row["text"].encode())
    return target


def differences(
    found: Iterable[Account | Unreadable], expected: dict[str, dict[str, Any]] | None = None
) -> list[Difference]:
    """All in which accounts that were read differ from what was filled: `account`, `what` (account, password,
    roster, requests, vcard, private, offline, blocked), maybe `of` and `field`, `expected` and `found`.
    """
    wanted = dict(truth() if expected is None else expected)
    out: list[Difference] = []
    for account in found:
        if isinstance(account, Unreadable):
            out.append({"account": account.name, "what": "account", "found": account.why})
            continue
        row = wanted.pop(account.name, None)
        if row is None:
            out.append({"account": account.name, "what": "account", "expected": None, "found": "there"})
            continue
        out += [{"account": account.name, **difference} for difference in _of(row, account)]
    return out + [{"account": name, "what": "account", "found": None} for name in wanted]


def unexplained(found: Iterable[Difference], explained: Path) -> list[Difference]:
    """Those that a `differences.jsonl` does not have, with the same value where it is whole there."""
    known: dict[tuple[Any, ...], list[Any]] = {}
    for line in _lines(explained):
        row = json.loads(line)
        known.setdefault(_key(row), []).append(row.get("found"))
    return [row for row in found if not _is_known(row, known.get(_key(row), []))]


def _key(row: Difference) -> tuple[Any, ...]:
    return row["account"], row["what"], row.get("of"), row.get("field")


def _is_known(row: Difference, values: list[Any]) -> bool:
    if row["what"] not in ("roster", "requests", "blocked", "account"):
        return bool(values)  # longer values are cut there, or written otherwise
    return any(value == row.get("found") for value in values)


def _of(row: dict[str, Any], account: Account) -> Iterator[Difference]:
    yield from _password(row["password"], account)
    yield from _roster(row, account)
    yield from _requests(row, account)
    vcard = row.get("vcard")
    wanted_card = canonical(element_of(vcard)) if vcard else None
    found_card = canonical(account.vcard) if account.vcard is not None else None
    if wanted_card != found_card:
        yield {"what": "vcard", "expected": wanted_card, "found": found_card}
    private = {tree.tag: canonical(tree) for tree in map(element_of, row.get("private", ()))}
    kept = {tree.tag: canonical(tree) for tree in account.private}
    for tag in sorted(private.keys() | kept.keys()):
        if private.get(tag) != kept.get(tag):
            yield {"what": "private", "of": tag, "expected": private.get(tag), "found": kept.get(tag)}
    waiting = [_message(message) for message in row.get("offline", ())]
    queued = [_queued(offline.message) for offline in account.offline]
    if waiting != queued:
        yield {"what": "offline", "expected": waiting, "found": queued}
    if sorted(row.get("blocked", ())) != sorted(account.blocks):
        yield {"what": "blocked", "expected": sorted(row.get("blocked", ())), "found": sorted(account.blocks)}


def _password(password: str, account: Account) -> Iterator[Difference]:
    if account.password is not None and account.password != password:
        yield {"what": "password", "expected": password, "found": account.password}
    if account.password is None and not account.keys:
        yield {"what": "password", "expected": password, "found": None}
    for name, keys in account.keys.items():
        if not fits(name, keys, password):
            is_prepared = fits(name, keys, unicodedata.normalize("NFKC", password).replace("\xad", ""))
            yield {"what": "password", "found": f"{name}: {'NFKC' if is_prepared else 'of something else'}"}


def fits(name: str, keys: Keys, password: str) -> bool:
    """Whether these are the keys of a password as it is typed (RFC 5802 3)."""
    salted = hashlib.pbkdf2_hmac(name, password.encode(), keys.salt, keys.iterations)
    stored = hashlib.new(name, hmac.digest(salted, b"Client Key", name)).digest()
    return stored == keys.stored and hmac.digest(salted, b"Server Key", name) == keys.server


def _roster(row: dict[str, Any], account: Account) -> Iterator[Difference]:
    wanted = {
        item["jid"]: {key: value for key, value in item.items() if key != "jid"} for item in row["roster"]
    }
    found = {contact.jid: _item(contact) for contact in account.roster if contact.listed}
    for jid in sorted(wanted.keys() | found.keys()):
        old, new = wanted.get(jid), found.get(jid)
        if old is None or new is None:
            yield {"what": "roster", "of": jid, "expected": old, "found": new}
            continue
        for field, value in old.items():
            is_same = sorted(value) == sorted(new[field]) if field == "groups" else value == new[field]
            if not is_same:
                yield {"what": "roster", "of": jid, "field": field, "expected": value, "found": new[field]}


def _item(contact: Contact) -> dict[str, Any]:
    return {
        "subscription": contact.subscription,
        "ask": contact.ask,
        "approved": contact.approved,
        "name": contact.name,
        "groups": sorted(contact.groups),
    }


def _requests(row: dict[str, Any], account: Account) -> Iterator[Difference]:
    wanted = {request["from"]: {**request, "from": ""} for request in row.get("requests", ())}
    found = {contact.jid: _asked(contact) for contact in account.roster if contact.pending}
    for jid in sorted(wanted.keys() | found.keys()):
        old, new = wanted.get(jid), found.get(jid)
        if old is None or new is None:
            yield {"what": "requests", "of": jid, "expected": old, "found": new}
            continue
        for field in ("status", "nick"):
            if (old.get(field) or "") != new[field]:
                yield {
                    "what": "requests",
                    "of": jid,
                    "field": field,
                    "expected": old.get(field) or "",
                    "found": new[field],
                }


def _asked(contact: Contact) -> dict[str, str]:
    if contact.request is None:
        return {"status": "", "nick": ""}
    nick = contact.request.find("{*}nick")
    return {
        "status": contact.request.findtext(f"{{{ns.CLIENT}}}status") or "",
        "nick": (nick.text or "") if nick is not None else "",
    }


def _message(message: dict[str, Any]) -> dict[str, Any]:
    tree = element_of(f"<message>{message['inner']}</message>")
    tree.attrib.update({key: message[key] for key in ("from", "type", "id") if message.get(key)})
    return _queued(tree)


def _queued(tree: Element) -> dict[str, Any]:
    """A message without stamps: some servers add theirs within, and a sender may have put in one, too."""
    attrs = {key: tree.attrib[key] for key in ("from", "type", "id") if tree.get(key)}
    added = (f"{{{ns.DELAY}}}delay", f"{{{ns.LEGACY_DELAY}}}x", f"{{{ns.STANZA_ID}}}stanza-id")
    return {**attrs, "inner": sorted(canonical(child) for child in tree if child.tag not in added)}


def canonical(tree: Element) -> str:
    """An element as text in which only what XML means is left."""
    attrs = "".join(f" {key}={json.dumps(value)}" for key, value in sorted(tree.items()))
    inner = "".join(canonical(child) + (child.tail or "") for child in tree)
    return f"<{tree.tag}{attrs}>{tree.text or ''}{inner}</>"
