#!/bin/sh
# Uploaded the results of test_gym.sh to OpenAI Gym in 2016.
echo 'OpenAI closed the Gym scoreboard in 2017. ./test_gym.sh SNAPSHOT writes scores and a film to results/, which you can share.' >&2
exit 2
