#!/bin/sh
# Continues a training that was stopped.
set -eu
root=$(dirname "$(readlink -f "$0" || echo "$0")")
. "$root/scripts/usage.sh"
require 'SNAPSHOT|NAME' 'breakout' "$@"

main --resume "$@"
