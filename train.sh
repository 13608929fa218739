#!/bin/sh
# Trains on a game. Snapshots and statistics go below the current folder, named after the game (and the label).
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./train.sh GAME [LABEL] [options]     (--help lists the options)' >&2
    echo 'example: ./train.sh breakout slow --learning_rate 0.0001' >&2
    exit 2
    ;;
esac

game=$1
shift
name=${game##*/}  # without its folder
name=${name%.*}   # and without .bin
case ${1-} in
  '' | -* | @*) ;;
  */*)
    echo "error: $1 is no label: it must not contain /" >&2
    exit 2
    ;;
  *)
    name=${name}_$1
    shift
    ;;
esac
if [ -z "$name" ]; then
  echo "error: $game does not name a game" >&2
  exit 2
fi
main --save_weights_prefix "snapshots/$name" --csv_file "results/$name.csv" "$game" "$@"
