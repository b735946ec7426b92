#!/usr/bin/env bash
# Runs a program with every call of the C allocator counted: scripts/count-allocations.sh .build/release/headway bench estimate
set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${CC:-cc}" -O2 -fPIC -shared -fno-builtin -o "$work/count.so" "$here/count_allocations.c"
LD_PRELOAD="$work/count.so" "$@"
