#!/bin/sh
# Profiles 5000 training steps of Pong. Arguments are passed on to main.py.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
export PYTHONSAFEPATH=1 # or else -m imports a math.py of the current folder
exec "$root/scripts/python" -m cProfile -s cumtime "$root/src/main.py" \
  --exploration_rate_end 1 --random_steps 50 --train_steps 5000 --test_steps 0 --epochs 1 \
  --train_frequency 1 --target_steps 0 \
  pong "$@"
