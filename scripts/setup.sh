#!/usr/bin/env bash
# Installs what build, demo and tests need: Debian packages, and a Python environment in .venv. Does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(libhiredis-dev libssl-dev redis-server python3 python3-venv)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    sudo=""
    if [ "$(id -u)" -ne 0 ]; then sudo="sudo"; fi
    echo "setup: installing ${missing[*]}"
    $sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v swift >/dev/null; then
    echo "setup: the Swift 6.3 toolchain is not installed: see https://www.swift.org/install/linux/" >&2
    exit 1
fi

requirements=(examples/relief/requirements.txt Tests/programs/requirements.txt)
stamp=.venv/.installed
if ! cat "${requirements[@]}" | cmp -s - "$stamp"; then
    echo "setup: making the Python environment .venv"
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check "${requirements[@]/#/-r}"
    cat "${requirements[@]}" >"$stamp"
fi
