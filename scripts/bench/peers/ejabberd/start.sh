#!/usr/bin/env bash
# start.sh DATADIR PORT [full|bare] : starts ejabberd on 127.0.0.1:PORT (direct TLS on PORT+1).
# Prints "PID <pid of beam.smp>" when it accepts connections. Installs the Debian packages when missing.
# The node runs without Erlang distribution (nonode@nohost): no epmd, nothing but the two c2s ports.
# env: DOMAIN=localhost DB=mnesia|sql MAMDB=sql|mnesia (sql = SQLite) AUTHFMT=plain|scram ERL_EXTRA=""
set -e
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../../_setup"
data=${1:?data dir} port=${2:?port} profile=${3:-full}
DOMAIN=${DOMAIN:-localhost} DB=${DB:-mnesia} AUTHFMT=${AUTHFMT:-plain} MAMDB=${MAMDB:-sql}
if [ ! -x /usr/sbin/ejabberdctl ] || ! dpkg -s erlang-p1-sqlite3 >/dev/null 2>&1; then
  say "installing ejabberd"
  apt_install ejabberd erlang-p1-sqlite3 sqlite3 openssl || fail "the peer ejabberd could not be installed"
fi
mkdir -p "$data/spool" "$data/log"
[ -f "$data/ejabberd.pem" ] || { openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$DOMAIN" -keyout "$data/key.pem" -out "$data/cert.pem" 2>/dev/null; cat "$data/cert.pem" "$data/key.pem" > "$data/ejabberd.pem"; }
sed -e "s#@DATA@#$data#g; s#@PORT@#$port#g; s#@TLSPORT@#$((port+1))#g; s#@DB@#$DB#g; s#@MAMDB@#$MAMDB#g; s#@AUTHFMT@#$AUTHFMT#g; s#@DOMAIN@#$DOMAIN#g" "$here/ejabberd.yml.in" > "$data/ejabberd.yml"
if [ "$profile" = full ]; then
  if [ "$MAMDB" = sql ] && [ ! -f "$data/ejabberd.sqlite" ]; then (echo "PRAGMA journal_mode=WAL;"; cat "$(ls /usr/lib/*/ejabberd-*/priv/sql/lite.sql /usr/share/ejabberd/sql/lite.sql 2>/dev/null | head -1)") | sqlite3 "$data/ejabberd.sqlite" >/dev/null; fi
  sed -i 's/^#FULL#//' "$data/ejabberd.yml"; else sed -i '/^#FULL#/d' "$data/ejabberd.yml"; fi
ulimit -n 1000000 2>/dev/null || ulimit -n 65536 2>/dev/null || true
export HOME="$data" EJABBERD_CONFIG_PATH="$data/ejabberd.yml" EJABBERD_LOG_PATH="$data/log/ejabberd.log" ERL_MAX_PORTS=200000 ERL_MAX_ETS_TABLES=20000 ERL_LIBS=$(dirname "$(ls -d /usr/lib/*/ejabberd-*/ebin | head -1)" | xargs dirname) ERL_CRASH_DUMP_SECONDS=0
cd "$data"
setsid /usr/bin/erl +K true +P 1000000 +Q 200000 +sbwt none +sbwtdcpu none +sbwtdio none $ERL_EXTRA -mnesia dir "\"$data/spool\"" -mnesia dump_log_write_threshold 50000 -s ejabberd -noinput >"$data/stdout.log" 2>&1 </dev/null &
pid=$!
echo $pid > "$data/bench.pid"
for i in $(seq 1 200); do
  if (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; then sleep 0.5; echo "PID $pid"; exit 0; fi
  kill -0 $pid 2>/dev/null || { echo "ejabberd died:" >&2; tail -n 30 "$data"/*.log "$data"/log/*.log >&2; exit 1; }
  sleep 0.2
done
echo "timeout" >&2; tail -n 30 "$data"/*.log "$data"/log/*.log >&2; exit 1
