#!/bin/sh
# Reports an experiment: results/NAME/report.html, report.png and report.md.
set -eu
if [ $# = 0 ]; then
  echo 'usage: ./report.sh NAME [options]     (--help lists the options)' >&2
  echo 'example: ./report.sh night --films false' >&2
  exit 2
fi
root=$(dirname "$(readlink -f "$0" || echo "$0")")
exec "$root/scripts/python" "$root/src/experiment_report.py" "$@"
