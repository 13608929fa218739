#!/bin/sh
# Said goodbye to: it uploaded what test_gym.sh found.
echo 'OpenAI closed the Gym scoreboard in 2017, so there is nowhere to upload to: ./test_gym.sh SNAPSHOT leaves scores and a film in results/, to share as you like' >&2
exit 2
