#!/bin/sh
# Checks formatting, style and types, then runs the tests. Stops at the first failure. Arguments go to pytest.
set -eu
CDPATH= cd -- "$(dirname "$0")"
export PYTHONSAFEPATH=1 # or else -m imports a math.py of the current folder

step() {
  printf '\n== %s\n' "$*"
  scripts/python --dev -m "$@"
}

step ruff format --check
step ruff check
step mypy src nvis tests benchmarks
step pytest -n logical "$@" # as many at a time as there are cores
