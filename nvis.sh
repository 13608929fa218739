#!/bin/sh
# Plays one game and shows what a snapshot looks for and at, in results/GAME.html below the current folder.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./nvis.sh SNAPSHOT [options]     (--help lists the options)' >&2
    echo 'example: ./nvis.sh snapshots/breakout_77.pkl --visualization_filters 16' >&2
    exit 2
    ;;
esac

name=${1##*/}   # without its folder
name=${name%.*} # and without .pkl
case ${name##*_} in
  *[!0-9]*) ;;
  *) name=${name%_*} ;; # without the epoch
esac
main --play_games 1 --visualization_file "results/$name.html" --load_weights "$@"
