#!/bin/sh
# Tests a trained network: one epoch without training.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|GAME' 'breakout --test_steps 10000' "$@"

main --random_steps 0 --train_steps 0 --epochs 1 --load_weights "$@"
