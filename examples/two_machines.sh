#!/usr/bin/env bash
# Two machines on one: a hub and two mounts on loopback, a save that travels, an edit on each side that merges into one tree.
# Needs /dev/fuse, and as a normal user the package fuse3. Leaves nothing behind.
set -euo pipefail

syncfs=${SYNCFS:-"$(dirname "$0")/../target/release/syncfs"}
if [[ ! -x $syncfs ]]; then
  echo "build it first: cargo build --release (or set SYNCFS to the program)" >&2
  exit 1
fi

work=$(mktemp -d)
pids=()
# By id, and only what this script has started: first the mounts, which end with their directories plain again, then the hub.
clean_up() {
  local i
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  if grep -qF " $work/" /proc/self/mounts; then
    echo "still mounted below $work: left as it is" >&2
  else
    rm -rf "$work"
  fi
}
trap clean_up EXIT

# Polls a condition for at most 30 seconds.
wait_until() {
  local what=$1 end=$((SECONDS + 30))
  shift
  until "$@"; do
    if ((SECONDS > end)); then
      echo "waited in vain: $what" >&2
      tail -n 20 "$work"/*.log >&2
      exit 1
    fi
    sleep 0.05
  done
}
has_line() { grep -q "$1" "$2" 2>/dev/null; }
is_mounted() { grep -qF " $1 " /proc/self/mounts; }
has_text() { [[ -f $2 && $(<"$2") == "$1" ]]; }
is_gone() { [[ ! -e $1 ]]; }

echo "== a hub"
"$syncfs" hub init --data "$work/hub" >"$work/init.log"
"$syncfs" hub serve --data "$work/hub" --listen 127.0.0.1:0 >"$work/hub.log" 2>&1 &
pids+=($!)
wait_until "the hub listens" has_line '^listening on ' "$work/hub.log"
address=$(sed -n 's/^listening on //p' "$work/hub.log" | head -n 1)
hub_key=$("$syncfs" hub key --data "$work/hub")
echo "it listens on $address"

for name in desk laptop; do
  echo "== $name: a key, registered with the hub, and a mount"
  mkdir "$work/$name"
  key=$("$syncfs" key show --state "$work/$name.state")
  "$syncfs" admin register "$key" --name "$name" --data "$work/hub"
  "$syncfs" mount "$work/$name" -f --hub "$address" --hub-key "$hub_key" --state "$work/$name.state" >"$work/$name.log" 2>&1 &
  pids+=($!)
  wait_until "$name is mounted" is_mounted "$work/$name"
done

echo "== the desk saves a file, the laptop has it"
echo "hello world" >"$work/desk/greeting.txt"
wait_until "it arrives" has_text "hello world" "$work/laptop/greeting.txt"
cat "$work/laptop/greeting.txt"

echo "== the laptop renames and edits it, the desk follows"
mv "$work/laptop/greeting.txt" "$work/laptop/welcome.txt"
echo "hello to the world" >"$work/laptop/welcome.txt"
wait_until "the new version arrives" has_text "hello to the world" "$work/desk/welcome.txt"
wait_until "the old name is gone" is_gone "$work/desk/greeting.txt"
ls "$work/desk"

echo "== what both say"
"$syncfs" status "$work/desk" --state "$work/desk.state" || true
"$syncfs" status --hub --data "$work/hub" || true
