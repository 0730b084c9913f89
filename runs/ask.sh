#!/usr/bin/env bash
# Serve the checkpoint and gallery in FOLDER, send one query of the test split, stop.
#   bash runs/ask.sh FOLDER
set -euo pipefail
out=$1

serve run serve.app:build checkpoint="$out/checkpoint" gallery="$out/gallery" >"$out/serve.log" 2>&1 &
server=$!
trap 'kill -TERM $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
sleep 5 && kill -0 $server 2>/dev/null || { cat "$out/serve.log" >&2; exit 1; }
python runs/ask.py --url http://127.0.0.1:8000 --shards "$out/shards" --split test --image "$out/query.png" ||
  { tail -n 20 "$out/serve.log" >&2; exit 1; }
