#!/bin/sh
# Draws the learning curves of one or more statistics files in one picture.
set -eu
if [ $# = 0 ]; then
  echo 'usage: ./plot.sh CSV_FILE... [options]     (--help lists the options)' >&2
  echo 'example: ./plot.sh results/pong.csv results/pong_slow.csv --watch' >&2
  exit 2
fi
root=$(dirname "$(readlink -f "$0" || echo "$0")")
exec "$root/scripts/python" "$root/src/plot.py" "$@"
