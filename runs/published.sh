#!/usr/bin/env bash
# From a published data set to a report, on the cluster of RAY_ADDRESS or on this machine.
# Called by stbir_s.sh, stbir_c_gpu.sh and stbir_d.sh:
#   published.sh RECIPE KIND:PATH OUT NAME=COUNT…
#   WORKERS=1:4 GPU=yes SET="chunk_size=24 …"    values of train.py's --workers, --gpu, --set
#   ANY_COUNTS=1                                 accept other counts of photos and sketches
set -euo pipefail
recipe=$1 source=$2 out=$3
shift 3
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

log() { printf '\n== %s\n' "$*" >&2; }

log "prepare shards of $source"
python ray_jobs/prepare_shards.py --source "$source" --out "$out/shards" | tee "$summary"
[ -n "${ANY_COUNTS:-}" ] || python runs/counts.py "$summary" "$@"

log "preflight checks"
train=(--recipe "$recipe" --shards "$out/shards" --out "$out/checkpoint" --workers "${WORKERS:-1}" --gpu "${GPU:-auto}")
[ -z "${SET:-}" ] || read -ra settings <<<"$SET"
train+=(${SET:+--set "${settings[@]}"})
python ray_jobs/preflight.py --job train "${train[@]}"

log "train"
python ray_jobs/train.py "${train[@]}" --checkpoint-every 200

log "gallery and report of the test split"
python ray_jobs/embed_gallery.py --checkpoint "$out/checkpoint" --shards "$out/shards" --split test \
  --gallery "$out/gallery" --gpu "${GPU:-auto}"
python ray_jobs/evaluate.py --checkpoint "$out/checkpoint" --shards "$out/shards" --split test --robustness --out "$out/report"
