#!/usr/bin/env bash
# seed.sh DATADIR PORT DOMAIN N RING[,RING..]   RING = first:count:contacts
# Starts ejabberd once so that it creates its tables, stops it, then writes accounts
# user0..userN-1 (password "secret") and ring rosters straight into Mnesia.
# AUTHFMT=scram stores SCRAM-SHA-1 keys (4096 iterations, one salt for all) instead of the password.
set -e
here=$(cd "$(dirname "$0")" && pwd)
data=$1 port=$2 dom=$3 n=$4 rings=$5
DOMAIN=$dom "$here/start.sh" "$data" "$port" bare >/dev/null; sleep 1; "$here/../stop.sh" "$data"
cat > "$data/seed.erl" <<'ERL'
-module(seed).
-export([run/3]).
run(Dom, N, Rings) ->
    ok = mnesia:start(), ok = mnesia:wait_for_tables([passwd, roster], 30000),
    Password = case os:getenv("AUTHFMT") of "scram" -> scram(<<"secret">>, <<"one-salt-for-all">>, 4096); _ -> <<"secret">> end,
    [mnesia:dirty_write({passwd, {u(I), Dom}, Password}) || I <- lists:seq(0, N - 1)],
    [ring(Dom, R) || R <- Rings],
    io:format("passwd ~p roster ~p~n", [mnesia:table_info(passwd, size), mnesia:table_info(roster, size)]),
    mnesia:sync_log(), mnesia:dump_log(), mnesia:stop(), timer:sleep(500), halt(0).
scram(Pass, Salt, N) ->   % ejabberd's #scram{storedkey, serverkey, salt, hash, iterationcount}, base64
    Salted = crypto:pbkdf2_hmac(sha, Pass, Salt, N, 20),
    Stored = crypto:hash(sha, crypto:mac(hmac, sha, Salted, <<"Client Key">>)), Server = crypto:mac(hmac, sha, Salted, <<"Server Key">>),
    {scram, base64:encode(Stored), base64:encode(Server), base64:encode(Salt), sha, N}.
u(I) -> iolist_to_binary(["user", integer_to_list(I)]).
ring(Dom, {First, Count, R}) ->
    [begin C = First + ((I + S * K + Count) rem Count), Me = u(First + I), J = {u(C), Dom, <<>>},
       mnesia:dirty_write({roster, {Me, Dom, J}, {Me, Dom}, J, iolist_to_binary(["Summoner ", integer_to_list(C)]), both, none, [<<"**Default">>], <<>>, []})
     end || I <- lists:seq(0, Count - 1), K <- lists:seq(1, R div 2), S <- [1, -1]].
ERL
cd "$data"; erlc seed.erl
list=$(echo "$rings" | sed 's/:/,/g' | tr ',' ' ' | awk '{for (i=1;i<=NF;i+=3) printf "%s{%s,%s,%s}", (i>1 ? "," : ""), $i, $(i+1), $(i+2)}')
HOME="$data" timeout 240 erl -noinput -mnesia dir "\"$data/spool\"" -mnesia dump_log_write_threshold 200000 -eval "seed:run(<<\"$dom\">>, $n, [$list])."
