#!/bin/sh
# Films one game of a snapshot: videos/NAME/000001.png … and videos/NAME_N.mov in the current folder.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --video_file videos/breakout.gif' "$@"

main --play_games 1 --record_screen_path 'videos/{name}' --video_file 'videos/{snapshot}.mov' --load_weights "$@"
