#!/usr/bin/env bash
# The figures of docs/performance.md: a private Redis and one gateway (release build), on this machine alone.
set -euo pipefail
cd "$(dirname "$0")/.."

headway=${BINARY:-.build/release/headway}
data=$(mktemp -d)
redis="unix://$data/redis.sock"
redis-server --port 0 --unixsocket "$data/redis.sock" --dir "$data" --save '' --appendonly yes >"$data/redis.log" 2>&1 &
server=$!
"$headway" gateway --redis "$redis" --listen 127.0.0.1:0 --data "$data/blobs" >"$data/gateway.out" 2>"$data/gateway.err" &
gateway=$!
trap 'kill "$gateway" "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$data"' EXIT
for _ in $(seq 1 200); do
    url=$(sed -n 's/^listening //p' "$data/gateway.out" | head -n 1)
    [ -n "$url" ] && break
    sleep 0.05
done
if [ -z "${url:-}" ]; then
    cat "$data/gateway.err" >&2
    exit 1
fi

run() {
    echo "== $*"
    "$headway" bench --redis "$redis" --gateway "$url" "$@"
}
for round in 1 2 3; do
    echo "round $round"
    run --jobs 1 --watchers 1 --rate 20 --seconds 4
    run --jobs 200 --watchers 5 --rate 1000 --seconds 4
    run --jobs 1 --watchers 1000 --rate 10 --seconds 4
done

echo "== queue"
"$headway" bench queue

echo "== forecasts of waits, cost of an estimate"
"$headway" bench wait
scripts/count-allocations.sh "$headway" bench estimate
