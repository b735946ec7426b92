#!/usr/bin/env bash
# The page in a real Chromium, against a real gateway, worker and Redis, over each transport.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v chromium >/dev/null; then
    echo "test-browser: installing chromium"
    sudo=""
    if [ "$(id -u)" -ne 0 ]; then sudo="sudo"; fi
    $sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends chromium >/dev/null
fi
if [ ! -x .venv-browser/bin/python3 ]; then
    python3 -m venv .venv-browser
    .venv-browser/bin/pip install --quiet --disable-pip-version-check -r Tests/browser/requirements.txt
fi
swift build --product headway
data=$(mktemp -d)
.build/debug/headway dev --listen 127.0.0.1:0 --data "$data" >"$data/dev.log" 2>&1 &
dev=$!
trap 'kill -TERM "$dev" 2>/dev/null; wait "$dev" 2>/dev/null; rm -rf "$data"' EXIT
url=""
for _ in $(seq 1 300); do
    url=$(sed -n 's/^listening \(http:.*\)$/\1/p' "$data/dev.log" | head -n 1)
    [ -n "$url" ] && break
    sleep 0.1
done
if [ -z "$url" ]; then
    cat "$data/dev.log" >&2
    exit 1
fi
HEADWAY_TEST_URL=$url .venv-browser/bin/python3 -m unittest -v Tests/browser/test_page.py
