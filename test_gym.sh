#!/bin/sh
# Plays 100 episodes of the Gymnasium environment that a snapshot was trained on. Writes scores and a film of the first
# episode to results/NAME/ in the current folder.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|ENVIRONMENT' 'Breakout-v5' "$@"

main --environment gym --play_games 100 --scores_path 'results/{name}' \
  --video_file 'results/{name}/{name}.mp4' --record_games 1 --load_weights "$@"
