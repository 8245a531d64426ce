#!/bin/sh
# Checks the form of every source, and which part imports which: ruff and import-linter for Python, cython-lint for the
# engine. Prints findings only.
set -eu
cd "$(dirname "$0")/.."
# cython-lint calls pycodestyle by its name.
PATH=$PWD/.venv/bin:$PATH

ruff format --check --quiet .
ruff check --quiet .
imports=$(lint-imports --no-cache) || { echo "$imports"; exit 1; }

# cython-lint looks for unused names and the like in .pyx alone: a .pxi is checked as a copy of that name, which lies
# below pyproject.toml for its settings.
copies=build/lint
rm -rf $copies
mkdir -p $copies
for part in candy/engine/*.pxi bench/*.pxi; do
    cp "$part" "$copies/$(basename "$part" .pxi).pyx"
done
cython-lint candy/*.pyx bench/*.pyx tests/fuzz/*.pyx $copies/*.pyx
rm -r $copies
