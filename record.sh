#!/bin/sh
# Films one game of a snapshot, below the current folder: videos/GAME/000001.png and so on, and videos/GAME_N.mov.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./record.sh SNAPSHOT [options]     (--help lists the options)' >&2
    echo 'example: ./record.sh snapshots/breakout_77.pkl --video_file breakout.gif' >&2
    exit 2
    ;;
esac

film=${1##*/}   # without its folder
film=${film%.*} # and without .pkl
name=$film
case ${film##*_} in
  *[!0-9]*) ;;
  *) name=${film%_*} ;; # without the epoch
esac
main --play_games 1 --record_screen_path "videos/$name" --video_file "videos/$film.mov" --load_weights "$@"
