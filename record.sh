#!/bin/sh
# Films one game of a snapshot, below the current folder: videos/GAME/000001.png and so on, and videos/GAME_N.mov.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require SNAPSHOT 'snapshots/breakout_77.pkl --video_file breakout.gif' "$@"

film=${1##*/}   # without its folder
film=${film%.*} # and without .pkl
name=$(name_of "$1")
main --play_games 1 --record_screen_path "videos/$name" --video_file "videos/$film.mov" --load_weights "$@"
