#!/bin/sh
# Shows how a snapshot plays one game, and lets you take over: the key h tells how.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --display_screen terminal' "$@"

main --play_games 1 --display_screen true --load_weights "$@"
