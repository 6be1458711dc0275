"""What clients of games ask, as it should be, in each namespace."""

from __future__ import annotations

from xmppd import ns

PLAYERS, FRIENDS, RICH = "urn:xmppd:players:0", "urn:xmppd:friends:0", "urn:xmppd:rich-presence:0"
INVITES, MODERATION, EVENTS = "urn:xmppd:invites:0", "urn:xmppd:moderation:0", "urn:xmppd:game-events:0"
LOGIN, RIOT, URN = "urn:xmppd:game-login:0", "jabber:iq:riotgames", "urn:riotgames"
ALICE, BOB = "alice@localhost", "bob@localhost"

# What is asked as it should be: type, `to`, payload.
FINE: dict[str, tuple[str, str, str]] = {
    "own name": ("get", "", f"<player xmlns='{PLAYERS}'/>"),
    "look up": ("get", "localhost", f"<player xmlns='{PLAYERS}' name='Zoe#EUW' jid='{BOB}'/>"),
    "rename": ("set", "", f"<player xmlns='{PLAYERS}' name='Zoe#EUW'/>"),
    "platform": ("set", "", f"<platform xmlns='{PLAYERS}' name='pc'/>"),
    "friends": ("get", "", f"<friends xmlns='{FRIENDS}'/>"),
    "request": ("set", "", f"<request xmlns='{FRIENDS}' jid='{BOB}' name='Bob#ONE'>hi</request>"),
    "accept": ("set", "", f"<accept xmlns='{FRIENDS}' jid='{BOB}'/>"),
    "decline": ("set", "", f"<decline xmlns='{FRIENDS}' jid='{BOB}'/>"),
    "cancel": ("set", "", f"<cancel xmlns='{FRIENDS}' jid='{BOB}'/>"),
    "remove": ("set", "", f"<remove xmlns='{FRIENDS}' jid='{BOB}'/>"),
    "note": ("set", "", f"<note xmlns='{FRIENDS}' jid='carol@localhost'>supports</note>"),
    "groups": ("set", "", f"<groups xmlns='{FRIENDS}' jid='carol@localhost'><group>Raid</group></groups>"),
    "group": ("set", "", f"<group xmlns='{FRIENDS}' name='Raid' priority='1'/>"),
    "recent": ("get", "", f"<recent xmlns='{FRIENDS}'/>"),
    "say": (
        "set",
        "",
        f"<game xmlns='{RICH}' id='chess'><state>{{}}</state><join secret='x' for='friends'/></game>",
    ),
    "join": ("get", BOB, f"<join xmlns='{RICH}' id='chess'/>"),
    "hidden": ("get", "", f"<hidden xmlns='{RICH}'/>"),
    "hide": ("set", "", f"<hidden xmlns='{RICH}'><group>a</group><friend>{BOB}</friend></hidden>"),
    "invite": (
        "set",
        "",
        (
            f"<invite xmlns='{INVITES}' to='{BOB}' kind='match' target='m' game='g' seconds='60'>"
            "<payload>x</payload></invite>"
        ),
    ),
    "invites": ("get", "", f"<invites xmlns='{INVITES}'/>"),
    "accept invite": ("set", "", f"<accept xmlns='{INVITES}' id='x'/>"),
    "decline invite": ("set", "", f"<decline xmlns='{INVITES}' id='x'/>"),
    "cancel invite": ("set", "", f"<cancel xmlns='{INVITES}' id='x'/>"),
    "sanctions": ("get", "", f"<sanctions xmlns='{MODERATION}'/>"),
    "appeal": ("set", "", f"<appeal xmlns='{MODERATION}' id='x'>why</appeal>"),
    "report": (
        "set",
        "",
        (
            f"<report xmlns='{MODERATION}' jid='{BOB}' reason='spam'><text>x</text>"
            f"<stanza-id xmlns='{ns.STANZA_ID}' id='1'/></report>"
        ),
    ),
    "enable": ("set", "", f"<enable xmlns='{EVENTS}'><have resource='a' version='1'/></enable>"),
    "disable": ("set", "localhost", f"<disable xmlns='{EVENTS}'/>"),
    "refresh": ("set", "", f"<refresh xmlns='{LOGIN}'>eyJ</refresh>"),
    "riot session": ("set", "", f"<session xmlns='{ns.SESSION}'><platform>riot</platform></session>"),
    "entitlements": ("set", "", f"<entitlements xmlns='{URN}:entitlements'><token>x</token></entitlements>"),
    "rxep": ("set", "", f"<rxep xmlns='{URN}:rxep'><last-online-state enabled='true'/></rxep>"),
    "rxcep": ("set", "", f"<rxcep xmlns='{URN}:rxep'>&lt;last-online-state enabled='true'/&gt;</rxcep>"),
    "active": ("set", "", f"<query xmlns='{RIOT}:session'><session mode='active'/></query>"),
    "riot roster": ("get", "", f"<query xmlns='{RIOT}:roster' last_state='true'/>"),
    "riot ask": (
        "set",
        "",
        (
            f"<query xmlns='{RIOT}:roster'><item subscription='pending_out' jid='{BOB}' puuid='bob'>"
            "<id name='Bob' tagline='ONE'/></item></query>"
        ),
    ),
    "riot end": (
        "set",
        "",
        f"<query xmlns='{RIOT}:roster'><item subscription='remove' puuid='bob'/></query>",
    ),
    "riot list": ("get", "", f"<query xmlns='{ns.PRIVACY}'><list name='LOL'/></query>"),
    "riot block": (
        "set",
        "localhost",
        (
            f"<query xmlns='{ns.PRIVACY}'><add name='LOL'>"
            "<item type='jid' value='dora@localhost' order='1' action='deny'/></add></query>"
        ),
    ),
    "riot talks": ("get", "", f"<query xmlns='{RIOT}:archive:list'><count>5</count><since>0</since></query>"),
    "riot talk": ("get", "", f"<query xmlns='{RIOT}:archive'><with>{BOB}</with></query>"),
    "riot read": (
        "set",
        "",
        f"<query xmlns='{RIOT}:archive:read'><acknowledge with='{BOB}' read='1700000000000'/></query>",
    ),
    "riot token": ("set", "", f"<query xmlns='{RIOT}:rso'><access-token>eyJ</access-token></query>"),
}
