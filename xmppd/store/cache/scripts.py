"""What runs inside of Redis: each script is one step of the protocol in docs/design/011-roster-cache.md, or
of the list of nodes (`xmppd/store/cache/nodes.py`).

Those for rosters take the same three keys, which live in one slot: the value, the lease (the right to set
the value: a reader's, or that of the writer who began last) and the marks (a sorted set: each write under way
by its token, scored with the time, in milliseconds by the server's clock, at which it no longer counts).

A full Redis refuses what needs memory at the first such command of a script, unless something was deleted
before; so marks are set behind a DEL, and the rest is tried by `pcall`. Effects are replicated, not scripts
(Redis 5 and later), so the clock may be read.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and the name under which Redis knows it."""

    text: str
    sha: str


def _script(text: str) -> Script:
    # The name of a script is a SHA-1 by Redis' rules; nothing is secret here.
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

LEASED, NO_LEASE, MARKED = 1, 0, -1

READ = _script(
    f"""
if ARGV[3] ~= '' then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  {_NOW}
  if redis.call('ZCOUNT', KEYS[3], now, '+inf') > 0 then return {MARKED} end
end
local value = redis.call('GET', KEYS[1])
if value then return value end
local set = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if type(set) == 'table' and set.ok then return {LEASED} end
return {NO_LEASE}
"""
)
"""ARGV: token, milliseconds of a lease, channel and notice if the value is bad and must go (else "").
The value, `LEASED`, `NO_LEASE` (another reader has one) or `MARKED` (a write is under way).
"""

FILL = _script(
    """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
local set = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return set.ok and 1 or 0
"""
)
"""ARGV: token, value, milliseconds it lives. 1 if it was set."""

BEGIN = _script(
    f"""
redis.call('DEL', KEYS[1])
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
"""
)
"""ARGV: token, milliseconds that the mark stands, channel, notice. The value goes: should the writer die,
nobody must see it again.
"""

FINISH = _script(
    f"""
redis.call('ZREM', KEYS[3], ARGV[1])
local is_last = redis.call('GET', KEYS[2]) == ARGV[1]
if is_last then redis.call('DEL', KEYS[2]) end
redis.call('PUBLISH', ARGV[5], ARGV[6])
local version = tonumber(ARGV[2])
if version == 0 then return 0 end
{_NOW}
local is_only = is_last and redis.call('ZCOUNT', KEYS[3], now, '+inf') == 0
local there = tonumber(redis.call('GETRANGE', KEYS[1], 1, 16))
if there and version > 0 and there >= version then return 0 end
if is_only and ARGV[3] ~= '' then
  local set = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  if not set.ok then redis.call('DEL', KEYS[1]) end
  return 1
end
if there then redis.call('DEL', KEYS[1]) end
return 0
"""
)
"""ARGV: token, version (0: nothing was written, -1: unknown), value or "", milliseconds it lives, channel,
notice. 1 if this was the last and only write under way: then the roster is the newest one.
"""

RENEW = _script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
"""Of a lock, with one key. ARGV: token, milliseconds it stands. 1 if it is held by this token."""

RELEASE = _script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)
"""The same. ARGV: token. 1 if it was held by this token."""

TAKE = _script(
    """
local left = redis.call('PTTL', KEYS[1])
if left > 0 then return left end
local set = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return set.ok and 0 or -1
"""
)
"""Of a duty, with one key. ARGV: token, milliseconds it lives. 0 if it was set, the milliseconds that another
one still lives, -1 if Redis is full.
"""

LISTED, TAKEN, FULL = 1, 0, -1

BEAT = _script(
    f"""
{_NOW}
local name, incarnation, entry, is_first = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local others, is_taken = {{}}, false
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local is_read, found = pcall(cjson.decode, all[i + 1])
  is_read = is_read and type(found) == 'table' and type(found.beat) == 'number'
    and type(found.incarnation) == 'string'
  local age = is_read and math.abs(now - found.beat)
  if not is_read or age > tonumber(ARGV[6]) then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= name then
    others[#others + 1] = all[i]
    others[#others + 1] = all[i + 1]
  elseif age < tonumber(ARGV[5]) and found.incarnation ~= incarnation then
    is_taken = is_first or found.incarnation > incarnation
  end
end
local state = {TAKEN}
if not is_taken then
  local beat = string.format('{{"beat":%.0f,', now)
  local set = redis.pcall('HSET', KEYS[1], name, beat .. string.sub(entry, 2))
  state = type(set) == 'number' and {LISTED} or {FULL}
end
return {{now, state, others}}
"""
)
"""KEYS: the hash of nodes. ARGV: name, incarnation (texts that compare as the numbers do), entry (an object
of JSON with the incarnation in it), 1 for a node that begins, milliseconds that a beat counts and that an
entry is kept. The time; `LISTED`, `TAKEN` (another incarnation has the name) or `FULL`; name and entry of
each other node. A clock that was set back, as that of a replica that took over may be, makes beats old or
new by so much.
"""

LEAVE = _script(
    """
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return 0 end
local is_read, found = pcall(cjson.decode, entry)
if is_read and type(found) == 'table' and found.incarnation ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
)
"""KEYS: the hash of nodes. ARGV: name, incarnation. Whose entry it is by now is left there."""

SHARE = _script(
    """
redis.pcall('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
"""
)
"""KEYS: the secret. ARGV: the one to be put there if there is none. The one that is there, if any."""
