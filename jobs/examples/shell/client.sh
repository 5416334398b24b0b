#!/usr/bin/env bash
# A client of gofer with the nats command. It submits jobs with headers and a session, waits for their results, reads a large body
# from the object store, follows results with a durable consumer, and replays a dead letter.
# usage: client.sh nats://127.0.0.1:4222 http://SITE
# The site needs the paths /ok, /bytes/600000 with so many bytes, and /status/503 with that status.
set -euo pipefail
export NATS_URL=$1
site=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# stored prints the last message of a subject in a stream, once there is one.
stored() {
  for _ in $(seq 600); do
    if nats stream get "$1" --last-for "$2" 2>/dev/null; then return; fi
    sleep 0.2
  done
  echo "nothing under $2" >&2
  return 1
}
header() { sed -n "s/^ *$1: *//p" | head -1; }

# fetch publishes a job and prints its result. The id must be new: a job whose result is kept stores nothing.
fetch() {
  nats pub -J "gofer.jobs.default.$1" "$2" "${@:3}" >/dev/null 2>&1 # ends when the job is stored
  stored GOFER_RESULTS "gofer.results.default.$1"
}

id=sh-$(date +%s%N)
# All jobs of a session go through one proxy while it works.
fetch "$id-page" '{"url":"'"$site"'/ok","headers":{"Accept-Language":"en"},"proxy":{"session":"cart-7"}}' >"$work/page"
echo "page: $(header Gofer-Outcome <"$work/page") $(header Gofer-Status <"$work/page")"

fetch "$id-large" '{"url":"'"$site"'/bytes/600000"}' >"$work/large"
object=$(header Gofer-Object <"$work/large") # set because the body is over 512 KiB
nats object get "${object%%/*}" "${object#*/}" -f --no-progress -O "$work/body" >/dev/null
echo "large: $(wc -c <"$work/body" | tr -d ' ')"

# gofer setup prepares the durable reader. No other reader gets a result that was acked.
until nats consumer next GOFER_RESULTS reader --ack --wait 10s >"$work/next" && grep -q "$id-large" "$work/next"; do :; done
echo "followed: $(header Gofer-Outcome <"$work/next")"

fetch "$id-dead" '{"url":"'"$site"'/status/503","retry":{"max_attempts":1}}' >/dev/null
stored GOFER_DEAD "gofer.dead.default.$id-dead" >"$work/letter"
seq=$(sed -n 's/^Item: [^#]*#\([0-9]*\).*/\1/p' "$work/letter")
fetch "replay-$seq" "$(sed -n '/^{/,$p' "$work/letter")" -H "Gofer-Replay-Of:default/$id-dead" >"$work/again"
nats stream rmm GOFER_DEAD "$seq" -f >/dev/null
echo "replayed: $(header Gofer-Outcome <"$work/again") $(header Gofer-Error <"$work/again")"
