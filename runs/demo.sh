#!/usr/bin/env bash
# The whole pipeline on synthetic data, up to one answered query. `make demo` runs it.
#   bash runs/demo.sh [FOLDER] [PHOTOS]
set -euo pipefail
out=${1:-out/demo}
photos=${2:-800}

log() { printf '\n== %s\n' "$*" >&2; }

log "make $photos synthetic photos with sketches and captions"
python ray_jobs/prepare_shards.py --source "synthetic:$photos" --out "$out/shards"

log "train the three encoders"
python ray_jobs/train.py --recipe demo --shards "$out/shards" --out "$out/checkpoint"

log "embed the test photos into a gallery"
python ray_jobs/embed_gallery.py --checkpoint "$out/checkpoint" --shards "$out/shards" --split test --gallery "$out/gallery"

log "serve the gallery and send one query"
bash runs/ask.sh "$out"

log "evaluate (report: $out/report/report.html)"
python ray_jobs/evaluate.py --checkpoint "$out/checkpoint" --shards "$out/shards" --split test --out "$out/report"
