#!/usr/bin/env bash
# STBIR-C: the real chairs (QMUL ChairV2 with captions), trained on a CPU with recipe stbir_c_small.
#   bash runs/stbir_c.sh DATA [FOLDER]
# DATA holds ChairV2/, weights/ and, for stage clip, ShoeV2_photos/ (its README says where they come from).
# TEST_DATA may name a folder in the same layout with the held-out test split; else `val` is the check.
set -euo pipefail
data=$1
out=${2:-out/stbir_c}
test_data=${TEST_DATA:-}
export STBIR_DATA=$data

say() { printf '\n== %s\n' "$*" >&2; }

say "shards of the chairs, and of captioned shoes for stage clip"
python ray_jobs/prepare_shards.py --source "qmul:$data/ChairV2" --out "$out/shards"
python ray_jobs/prepare_shards.py --source "manifest:$data/ShoeV2_photos" --requires text --out "$out/shoes"

# With a test split apart, everything at hand is for training; without, val stays out as the check.
if [ -n "$test_data" ]; then
  python ray_jobs/prepare_shards.py --source "qmul:$test_data" --out "$out/test"
  train=train,val test=$out/test split=test
else
  train=train test=$out/shards split=val
fi

say "train on $train"
python ray_jobs/train.py --recipe stbir_c_small --shards "$out/shards" --split "$train" \
  --clip-shards "$out/shoes" --out "$out/checkpoint"

say "gallery and report ($split)"
python ray_jobs/embed_gallery.py --checkpoint "$out/checkpoint" --shards "$test" --split "$split" --gallery "$out/gallery"
python ray_jobs/evaluate.py --checkpoint "$out/checkpoint" --shards "$test" --split "$split" --out "$out/report"
