#!/bin/sh
# Checks formatting, style and types and runs the tests; stops at the first failure. Arguments go to pytest.
set -eu
CDPATH= cd -- "$(dirname "$0")"

step() {
  printf '\n== %s\n' "$*"
  scripts/python --dev -m "$@"
}

step ruff format --check
step ruff check
step mypy src tests benchmarks
step pytest -n logical "$@" # as many at a time as there are cores
