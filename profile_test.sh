#!/bin/sh
# Shows where the time goes when testing. Arguments are passed on to main.py.
set -eu
exec "$(dirname "$0")/scripts/python" -m cProfile -s cumtime "$(dirname "$0")/src/main.py" \
  --exploration_rate_test 0 --random_steps 0 --train_steps 0 --test_steps 10000 --epochs 1 \
  pong "$@"
