#!/bin/sh
# Profiles 10000 random steps of Pong. Arguments are passed on to main.py.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
export PYTHONSAFEPATH=1 # or else -m imports a math.py of the current folder
exec "$root/scripts/python" -m cProfile -s cumtime "$root/src/main.py" \
  --random_steps 10000 --train_steps 0 --test_steps 0 --epochs 1 \
  pong "$@"
