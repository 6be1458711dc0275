#!/usr/bin/env bash
# stop.sh DATADIR : polite stop of the server started with that data dir (TERM, then KILL after 30 s), only by recorded pid.
data=${1:?data dir}
pid=$(cat "$data/bench.pid" 2>/dev/null) || exit 0
kill -TERM "$pid" 2>/dev/null || { rm -f "$data/bench.pid"; exit 0; }
for i in $(seq 1 300); do kill -0 "$pid" 2>/dev/null || { rm -f "$data/bench.pid"; exit 0; }; sleep 0.1; done
kill -KILL "$pid" 2>/dev/null; rm -f "$data/bench.pid"
