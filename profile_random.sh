#!/bin/sh
# Shows where the time goes when playing at random. Arguments are passed on to main.py.
set -eu
exec "$(dirname "$0")/scripts/python" -m cProfile -s cumtime "$(dirname "$0")/src/main.py" \
  --random_steps 10000 --train_steps 0 --test_steps 0 --epochs 1 \
  pong "$@"
