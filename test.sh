#!/bin/sh
# Tests a trained network: one epoch without training.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./test.sh SNAPSHOT [options]     (--help lists the options)' >&2
    echo 'example: ./test.sh snapshots/breakout_10.pkl --test_steps 10000' >&2
    exit 2
    ;;
esac

main --random_steps 0 --train_steps 0 --epochs 1 --load_weights "$@"
