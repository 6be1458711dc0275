#!/usr/bin/env bash
# start.sh DATADIR PORT [full|bare] : starts Prosody on 127.0.0.1:PORT (direct TLS on PORT+1).
# Prints "PID <pid>" when it accepts connections. Installs the Debian packages when missing.
# env: DOMAIN=localhost BACKEND=epoll GC=generational STORAGE=internal AUTH=internal_plain
set -e
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../../_setup"
data=${1:?data dir} port=${2:?port} profile=${3:-full}
DOMAIN=${DOMAIN:-localhost} BACKEND=${BACKEND:-epoll} GC=${GC:-generational} STORAGE=${STORAGE:-internal} AUTH=${AUTH:-internal_plain}
if [ ! -x /usr/bin/prosody ]; then
  say "installing prosody"
  apt_install prosody lua-event lua-dbi-sqlite3 lua-sec openssl || fail "the peer Prosody could not be installed"
fi
mkdir -p "$data/data"
[ -f "$data/cert.pem" ] || openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$DOMAIN" -keyout "$data/key.pem" -out "$data/cert.pem" 2>/dev/null
sed -e "s#@PROFILE@#$profile#g; s#@DATA@#$data#g; s#@PORT@#$port#g; s#@TLSPORT@#$((port+1))#g; s#@BACKEND@#$BACKEND#g; s#@GC@#$GC#g; s#@STORAGE@#$STORAGE#g; s#@AUTH@#$AUTH#g; s#@DOMAIN@#$DOMAIN#g" \
  "$here/prosody.cfg.lua.in" > "$data/prosody.cfg.lua"
chmod -R a+rX "$data"
ulimit -n 1000000 2>/dev/null || ulimit -n 65536 2>/dev/null || true
setsid /usr/bin/prosody --root --config "$data/prosody.cfg.lua" -F >"$data/stdout.log" 2>&1 </dev/null &
pid=$!
echo $pid > "$data/bench.pid"
for i in $(seq 1 150); do
  if (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; then echo "PID $pid"; exit 0; fi
  kill -0 $pid 2>/dev/null || { echo "prosody died:" >&2; tail -n 20 "$data"/*.log >&2; exit 1; }
  sleep 0.2
done
echo "timeout" >&2; exit 1
