#!/bin/sh
# Draws the learning curves of statistics files; several are laid over each other.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/plot.py" "$@"; }

if [ $# = 0 ]; then
  echo 'usage: ./plot.sh CSV_FILE... [options]     (--help lists the options)' >&2
  echo 'example: ./plot.sh results/pong.csv results/pong_slow.csv --watch' >&2
  exit 2
fi
main "$@"
