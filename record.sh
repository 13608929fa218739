#!/bin/sh
# Films one game of a snapshot: videos/NAME/000001.png … and videos/NAME_N.mov in the current folder.
# With a --video_file of your own there are no pictures, unless you give --record_screen_path.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --video_file videos/breakout.gif' "$@"

frames='--record_screen_path videos/{name}'
for argument; do
  case $argument in
    --video_file | --video_file=* | -video_file | -video_file=*) frames= ;; # thousands of files that nobody asked for
    @*) if grep -qs '^[^#]*-video_file' "${argument#@}" "$root/${argument#@}"; then frames=; fi ;; # a file of options
  esac
done
# shellcheck disable=SC2086  (two words, or none)
main --play_games 1 $frames --video_file 'videos/{snapshot}.mov' --load_weights "$@"
