"""Sources of each format with a place for one value: what hostile sources are made of."""

from __future__ import annotations

from collections.abc import Mapping

from xmppd.migrate.formats import FORMATS

BY_NAME = {each.name: each for each in FORMATS}
NAMES = sorted(BY_NAME)

MNESIA = (
    b"{tables,[{passwd,[{attributes,[us,password]}]},{vcard,[{attributes,[us,vcard]}]}]}.\n"
    b'{passwd,{<<"a">>,<<"h">>},<<"p">>}.\n'
)
PIE = b"<server-data xmlns='urn:xmpp:pie:0'><host jid='h'>%b</host></server-data>"
DUMPED = b"CREATE TABLE %b;\n"
VALUES: Mapping[str, tuple[str, bytes, bytes]] = {
    "jsonl": ("f.jsonl", b'{"account": "a@h", "vcard": "', b'"}\n'),
    "csv": ("f.csv", b'account,vcard\na@h,"', b'"\n'),
    "tigase": ("f.tsv", b"a@h\t", b"\n"),
    "ejabberd-mnesia": (
        "f.dump",
        MNESIA + b'{vcard,{<<"a">>,<<"h">>},{xmlel,<<"vCard">>,[],[{xmlcdata,<<"',
        b'">>}]}}.\n',
    ),
    "xep-0227": (
        "f.xml",
        PIE.partition(b"%b")[0] + b"<user name='a' password='p'><vCard xmlns='vcard-temp'>",
        b"</vCard></user>" + PIE.partition(b"%b")[2],
    ),
    "prosody": ("h/accounts/a.dat", b'return {\n\t["password"] = "', b'";\n};\n'),
    "prosody-sql": (
        "f.sql",
        DUMPED
        % b"prosody (host TEXT, user TEXT, store TEXT, key TEXT, type TEXT, value TEXT)"
        + b"INSERT INTO prosody VALUES('h','a','accounts','password','string','p');\n"
        b"INSERT INTO prosody VALUES('h','a','vcard','','json','",
        b"');\n",
    ),
    "ejabberd-sql": (
        "f.sql",
        DUMPED % b"users (username text, password text)"
        + DUMPED % b"rosterusers (username text, jid text, subscribe text)"
        + DUMPED % b"vcard (username text, vcard text)"
        + b"INSERT INTO users VALUES ('a','p');\nINSERT INTO vcard VALUES ('a','",
        b"');\n",
    ),
    "mongooseim": (
        "f.sql",
        DUMPED % b"users (server text, username text, password text, pass_details text)"
        + DUMPED % b"vcard (server text, username text, vcard text)"
        + b"INSERT INTO users VALUES ('h','a','p',NULL);\nINSERT INTO vcard VALUES ('h','a','",
        b"');\n",
    ),
    "openfire-sql": (
        "f.sql",
        DUMPED % b"ofUser (username text, plainPassword text)"
        + DUMPED % b"ofRoster (rosterID int, username text)"
        + DUMPED % b"ofVCard (username text, vcard text)"
        + b"INSERT INTO ofUser VALUES ('a','p');\nINSERT INTO ofVCard VALUES ('a','",
        b"');\n",
    ),
}
"""A file of each format with a place for one value: a vCard, a roster, a password."""
