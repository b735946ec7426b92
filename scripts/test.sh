#!/usr/bin/env bash
# Every test, with the time of each suite. A suite that cannot run here says so and fails the run; nothing is skipped silently.
set -euo pipefail
cd "$(dirname "$0")/.."

names=()
times=()
suite() {
    local name=$1 start=$SECONDS
    shift
    echo "==> $name"
    "$@"
    names+=("$name")
    times+=($((SECONDS - start)))
}

suite "lint" make --no-print-directory lint
suite "build" swift build --build-tests
suite "python: examples/relief" .venv/bin/python3 -m unittest discover -s examples/relief/tests -q
# One test at a time: they start servers and processes of their own, and a machine has few cores.
swift_test() {
    local log status=0
    log=$(mktemp)
    swift test --skip-build --no-parallel 2>&1 | tee "$log" || status=$?
    if [[ $status -ne 0 ]]; then
        # Thousands of lines lie between a failure and the end: say it again where it is seen.
        echo "==> what failed"
        grep -a "^✘" "$log" | cut -c1-2000 | head -100
    fi
    rm -f "$log"
    return "$status"
}
suite "swift test" swift_test

echo "==> time of each suite"
for index in "${!names[@]}"; do printf '%6d s  %s\n' "${times[$index]}" "${names[$index]}"; done
