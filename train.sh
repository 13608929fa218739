#!/bin/sh
# Trains on a game. Writes snapshots and statistics to the current folder, named after the game and the label.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'GAME [LABEL]' 'breakout slow --learning_rate 0.0001' "$@"

game=$1
shift
label=''
case ${1-} in
  '' | -* | @*) ;;
  */*)
    hint=''
    if [ -f "$1" ] || [ -f "$root/$1" ]; then hint="; to use the options in this file, type @$1"; fi
    echo "error: $1 is not a label: a label must not contain /$hint" >&2
    exit 2
    ;;
  *)
    label=_$1
    shift
    ;;
esac
name=$(name_of_game "$game" "$@")
if [ -z "$name" ]; then
  echo "error: $game does not name a game" >&2
  exit 2
fi
name=$name$label
main --save_weights_prefix "snapshots/$name" --csv_file "results/$name.csv" "$game" "$@"
