#!/usr/bin/env bash
# The main job on real input, to its end: a photograph goes in, a 3-D model comes out, every step of its progress through Redis.
# Starts a private Redis, gateway and worker (`headway dev`) and ends them again, unless KEEP=1.
set -euo pipefail
cd "$(dirname "$0")/.."

headway=.build/debug/headway
photo=${PHOTO:-$(ls examples/relief/photos/*.jpg | head -n 1)}
data=.headway/demo
out=out/demo
mkdir -p "$data" "$out"
log=$data/dev.log

echo "demo: starting a private Redis, a gateway and a worker (log: $log)"
"$headway" dev --listen "${LISTEN:-127.0.0.1:0}" --data "$data" >"$log" 2>&1 &
dev=$!
stop() {
    kill -TERM "$dev" 2>/dev/null || true
    wait "$dev" 2>/dev/null || true
}
trap stop EXIT

url=""
for _ in $(seq 1 300); do
    url=$(sed -n 's/^listening \(http:.*\)$/\1/p' "$log" | head -n 1)
    [ -n "$url" ] && break
    if ! kill -0 "$dev" 2>/dev/null; then
        echo "demo: headway dev ended before it listened:" >&2
        cat "$log" >&2
        exit 1
    fi
    sleep 0.1
done
if [ -z "$url" ]; then
    echo "demo: headway dev did not listen within 30 s; its log:" >&2
    cat "$log" >&2
    exit 1
fi

echo "demo: $photo becomes a relief; the same bar is at $url/"
"$headway" submit --gateway "$url" --queue relief --pipeline relief --input "$photo" --watch --output "$out"
model=$(ls -t "$out"/*.glb | head -n 1)
echo "demo: the page is at $url/"
if [ "${KEEP:-}" = 1 ]; then
    echo "$PWD/$model"
    echo "demo: left running (KEEP=1): open $url/ and drop an image; Ctrl-C ends it"
    wait "$dev"
else
    echo "demo: 'make demo KEEP=1' leaves it up"
    echo "$PWD/$model"
fi
