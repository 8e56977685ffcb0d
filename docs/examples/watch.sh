#!/usr/bin/env bash
# An alert for each task that fails, with curl and jq: watch.sh [http://localhost:8555]
set -euo pipefail

url=${1:-${GATEWAY_URL:-http://localhost:8555}}
position= delay_seconds=1

while true; do
    # A line that is cut off in the middle is no JSON: fromjson? drops it, and it comes again.
    while IFS=$'\t' read -r id type what; do
        case $type in
        task-failed) echo "ALERT $what" ;; # in place of echo: mail, a webhook, …
        gateway-open) echo "connected ($what)" ;;
        gateway-gap) echo "alerts may be missing ($what)" ;;
        esac
        position=$id delay_seconds=1 # from here on, if the connection is lost
    done < <(
        # The gateway says something every 15 s; curl gives up a connection that is silent for 45.
        curl --silent --show-error --fail --no-buffer --speed-limit 1 --speed-time 45 --connect-timeout 10 \
            --get --data format=ndjson --data type=task-failed \
            ${position:+--data-urlencode "last_event_id=$position"} "${url%/}/events" |
            jq --unbuffered --raw-input --raw-output 'fromjson?
                | [.id, .type, .resume // .reason // "\(.name) \(.uuid): \(.exception)"] | @tsv'
    )
    sleep "$((1 + RANDOM % delay_seconds))"
    delay_seconds=$((delay_seconds < 30 ? delay_seconds * 2 : 30))
done
