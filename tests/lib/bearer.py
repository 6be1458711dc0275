"""OAUTHBEARER (RFC 7628) for slixmpp, which has none of its own: the token is the password."""

import json
from typing import Any

from slixmpp.util.sasl.client import Mech, sasl_mech

told: list[dict[str, Any]] = []
"""What servers said of tokens that did not hold."""


@sasl_mech(1)
class OAuthBearer(Mech):
    """It is there once this module is."""

    name = "OAUTHBEARER"
    required_credentials = frozenset({"password"})

    def process(self, challenge: bytes = b"") -> bytes:
        """The token, and the acknowledgement of why it does not hold."""
        if challenge:
            told.append(json.loads(challenge))
            return b"\x01"
        return b"n,,\x01auth=Bearer " + self.credentials["password"] + b"\x01\x01"
