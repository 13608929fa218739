#!/bin/sh
# Shows how a snapshot plays one game, and lets you take over: the key h tells how.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./play.sh SNAPSHOT [options]     (--help lists the options)' >&2
    echo 'example: ./play.sh snapshots/breakout_77.pkl --display_screen terminal' >&2
    exit 2
    ;;
esac

main --play_games 1 --display_screen true --load_weights "$@"
