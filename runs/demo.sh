#!/usr/bin/env bash
# The whole story on drawn pictures, from nothing to an answered query. `make demo` runs it.
#   bash runs/demo.sh [FOLDER] [PHOTOS]
set -euo pipefail
out=${1:-out/demo}
photos=${2:-800}

say() { printf '\n== %s\n' "$*" >&2; }

say "draw $photos photos with sketches and captions"
python ray_jobs/prepare_shards.py --source "synthetic:$photos" --out "$out/shards"

say "train the three towers"
python ray_jobs/train.py --recipe demo --shards "$out/shards" --out "$out/checkpoint"

say "embed the test photos into a gallery"
python ray_jobs/embed_gallery.py --checkpoint "$out/checkpoint" --shards "$out/shards" --split test --gallery "$out/gallery"

say "serve it, ask it"
bash runs/ask.sh "$out"

say "how good is it? (with pictures: $out/report/report.html)"
python ray_jobs/evaluate.py --checkpoint "$out/checkpoint" --shards "$out/shards" --split test --out "$out/report"
