#!/usr/bin/env bash
# Runs load profiles with ghz against a server of its own with the default model, or against SERVER, and prints a row for each.
#
#   deploy/load/run.sh                          # all profiles but soak
#   deploy/load/run.sh throughput overload      # these
#   SERVER=host:50051 deploy/load/run.sh smoke
#   SOAK=2m deploy/load/run.sh soak             # shorter than the half hour of the profile
#
# A profile is a file of ghz beside this one. Where throughput or mixed ran before, in the same call, the others take their rates from it:
# overload twice the throughput, knee steps of a quarter of it, soak half of mixed. Full answers of ghz are left in target/load/.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=v0.120.0
out=target/load
bin=${DENSEVIT_BIN:-target/release/densevit}
ghz=third_party/bin/ghz
server=

fail() {
  echo "load: $1" >&2
  exit 1
}

stop() {
  [[ -z $server ]] || { kill -TERM "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
}
trap stop EXIT

install_ghz() {
  [[ ! -x $ghz ]] || return 0
  command -v go >/dev/null || fail "ghz is not in third_party/bin, and there is no Go to install it with (Debian: apt-get install golang)"
  echo "load: installing ghz $version"
  GOBIN=$PWD/third_party/bin go install "github.com/bojand/ghz/cmd/ghz@$version"
}

# One photo at the sizes that the profiles ask for.
write_requests() {
  local photo size
  photo=$(base64 -w0 third_party/photos/chelsea.png)
  request() {
    printf '{"image":{"encoded":"%s"},"preprocess":{"exact":{"height":%d,"width":%d}},"features":{"dtype":"DTYPE_F16"}}' "$photo" "$1" "$2"
  }
  request 224 224 >"$out/square.json"
  { printf '['; request 224 224; printf ','; request 224 336; printf ','; request 336 224; printf ','; request 336 336; printf ']'; } >"$out/mixed.json"
}

start_server() {
  "$bin" serve --listen 127.0.0.1:0 --no-admin >"$out/server.out" 2>"$out/server.log" &
  server=$!
  for _ in $(seq 600); do
    address=$(sed -n 's/^listening on //p' "$out/server.out")
    [[ -z $address ]] || return 0
    kill -0 "$server" 2>/dev/null || { tail -5 "$out/server.log" >&2; fail "the server did not start"; }
    sleep 0.1
  done
  fail "the server was not ready within a minute; see $out/server.log"
}

# Memory in KiB and processor time in milliseconds of the server, if it is ours.
usage() {
  [[ -n $server ]] || { echo "0 0"; return; }
  awk -v hz="$(getconf CLK_TCK)" 'FILENAME ~ /status$/ && /^VmRSS/ { rss = $2 } FILENAME ~ /stat$/ { cpu = ($14 + $15) * 1000 / hz } END { print rss, cpu }' \
    "/proc/$server/status" "/proc/$server/stat"
}

# Answers a second of a profile that ran, as a whole number.
rate_of() { python3 -c 'import json, sys; print(max(1, round(json.load(open(sys.argv[1]))["rps"])))' "$out/$1.result.json"; }

run_profile() {
  local profile=$1 more=() before after step code=0
  case $profile in
    overload) [[ -z $throughput ]] || more+=(--rps $((2 * throughput))) ;;
    knee)
      step=$(((throughput + 3) / 4))
      ((step == 0)) || more+=(--load-start "$step" --load-step "$step" --load-end $((8 * step)))
      ;;
    soak)
      [[ -z $mixed ]] || more+=(--rps $(((mixed + 1) / 2)))
      [[ -z ${SOAK:-} ]] || more+=(--duration "$SOAK")
      ;;
  esac
  before=$(usage)
  "$ghz" --config "deploy/load/$profile.json" "${more[@]}" --format json --output "$out/$profile.result.json" "$address" || fail "$profile: ghz failed"
  after=$(usage)
  # shellcheck disable=SC2086  # two numbers each
  python3 deploy/load/report.py "$profile" "$out/$profile.result.json" $before $after || code=$?
  case $profile in
    throughput) throughput=$(rate_of throughput) ;;
    mixed) mixed=$(rate_of mixed) ;;
  esac
  return "$code"
}

throughput= mixed=
profiles=("$@")
((${#profiles[@]})) || profiles=(smoke latency throughput mixed knee overload)
for profile in "${profiles[@]}"; do
  [[ -e deploy/load/$profile.json ]] || fail "there is no profile $profile"
done
install_ghz
mkdir -p "$out"
write_requests
address=${SERVER:-}
[[ -n $address ]] || start_server
failed=0
for profile in "${profiles[@]}"; do
  run_profile "$profile" || failed=1
done
exit "$failed"
