#!/bin/sh
# Goes on with a training that was stopped.
set -eu
. "$(dirname "$(readlink -f "$0" || echo "$0")")/scripts/usage.sh"
require 'SNAPSHOT|NAME' 'snapshots/breakout' "$@"

main --resume "$@"
