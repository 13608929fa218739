#!/bin/sh
# Plays one game and shows what a snapshot looks for and at, in results/GAME.html below the current folder.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require SNAPSHOT 'snapshots/breakout_77.pkl --visualization_filters 16' "$@"

name=$(name_of "$1")
main --play_games 1 --visualization_file "results/$name.html" --load_weights "$@"
