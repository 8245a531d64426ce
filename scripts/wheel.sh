#!/bin/sh
# A wheel for each of $PYTHONS (this checkout's, unless told otherwise) in dist/, for machines without a compiler.
#
# auditwheel names the oldest glibc that has all the engine needs: manylinux_2_X_ARCH runs on glibc 2.X and newer. What
# that is depends on the machine that builds: take the oldest that users have. The engine carries no library of its own,
# and OpenSSL is the one that Python has loaded.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/.venv/bin
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
mkdir -p dist
for python in ${PYTHONS:-$venv/python}; do
    "$python" -m pip wheel -q --disable-pip-version-check --no-deps --wheel-dir "$raw" .
done
for wheel in "$raw"/*.whl; do
    PATH=$venv:$PATH "$venv/python" -m auditwheel -v repair --wheel-dir dist "$wheel" >"$raw/log" 2>&1 || {
        cat "$raw/log" >&2
        exit 1
    }
done
ls dist/*.whl
