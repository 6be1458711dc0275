"""A game's back end: gives a player a token to log in with, and tells players that a match was found."""

import json
import time
import urllib.request
import uuid

import jwt

ISSUER, AUDIENCE = "https://id.example.org", "chat.example.org"


def token(player: str, key: str) -> str:
    """For an hour; `key` is a private key of P-256 in PEM."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": player, "iat": now, "exp": now + 3600}
    return jwt.encode({**claims, "jti": str(uuid.uuid4())}, key, algorithm="ES256")


def match_found(server: str, secret: str, match: str, players: list[str]) -> dict[str, object]:
    """Whom it reached; `secret` is a token of `xmppd api-token add game --scope game-events:push`."""
    event = {"resource": f"match/{match}", "version": 1, "to": players, "payload": '{"map": "rift"}'}
    headers = {
        "Authorization": f"Bearer {secret}",
        "Content-Type": "application/json",
        "Idempotency-Key": f'"{match}"',
    }
    url = f"{server}/api/v1/game-events/push"
    request = urllib.request.Request(url, json.dumps(event).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, object] = json.load(answer)
    return told
