#!/bin/sh
# Shows one game of a snapshot. You can take over: press h for the keys.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --display_screen terminal' "$@"

main --play_games 1 --display_screen true --load_weights "$@"
