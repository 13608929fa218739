#!/bin/sh
# Plays 100 episodes of the Gymnasium environment that a snapshot was trained on. Scores and a film of the first episode
# go to results/ENVIRONMENT/ below the current folder.
set -eu
main() { exec "$(dirname "$0")/scripts/python" "$(dirname "$0")/src/main.py" "$@"; }

case ${1-} in
  -h | --help) main --help ;;
  '' | -* | @*)
    echo 'usage: ./test_gym.sh SNAPSHOT [options]     (--help lists the options)' >&2
    echo 'example: ./test_gym.sh snapshots/Breakout-v0_77.pkl' >&2
    exit 2
    ;;
esac

name=${1##*/}   # without its folder
name=${name%.*} # and without .pkl
case ${name##*_} in
  *[!0-9]*) ;;
  *) name=${name%_*} ;; # without the epoch
esac
main --environment gym --play_games 100 --scores_path "results/$name" \
  --video_file "results/$name/$name.mp4" --record_games 1 --load_weights "$@"
