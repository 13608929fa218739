#!/bin/sh
# Trains several games, variants and seeds, here or on a cluster. Installs Ray on first use.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
case ${1-} in
  '')
    echo "usage: ./experiment.sh NAME --games GAME... [--variant 'VARIANT options']... [options]     (--help lists the options)" >&2
    echo "example: ./experiment.sh double --games pong breakout --seeds 3 --variant plain --variant 'double --double_dqn true'" >&2
    exit 2
    ;;
esac
exec "$root/scripts/python" --cluster "$root/src/experiment.py" "$@"
