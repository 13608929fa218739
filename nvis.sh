#!/bin/sh
# Plays one game with a snapshot. Writes what its filters respond to and what it looks at to results/NAME.html.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --visualization_filters 16' "$@"

main --play_games 1 --visualization_file 'results/{name}.html' --load_weights "$@"
