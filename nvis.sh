#!/bin/sh
# Plays one game and shows what a snapshot looks for and at, in results/NAME.html below the current folder.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --visualization_filters 16' "$@"

main --play_games 1 --visualization_file 'results/{name}.html' --load_weights "$@"
