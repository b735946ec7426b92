#!/bin/sh
updates="/dev/fd/${HEADWAY_PROGRESS_FD:-2}" # without a worker: standard error
for step in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1 # your work
    echo "{\"stage\":\"copying\",\"step\":$step,\"steps\":10}" >"$updates"
done
