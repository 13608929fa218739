#!/bin/sh
# Goes on with a training that was stopped.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./resume.sh SNAPSHOT|NAME [options]     (--help lists the options)' >&2
    echo 'example: ./resume.sh snapshots/breakout' >&2
    exit 2
    ;;
esac

main --resume "$@"
