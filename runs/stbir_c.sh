#!/usr/bin/env bash
# STBIR-C: the real chairs (QMUL ChairV2 with captions), trained on a CPU with recipe chairs_cpu.
#   bash runs/stbir_c.sh DATA [FOLDER]
# DATA has ChairV2/ and weights/. The first two stages also use ShoeV2_photos/ (captioned photos), ShoeV1/ and
# Sketchy/ (sketches, machine-written captions) if they exist.
# The report is of the test split of ChairV2; all other chairs are for training. Variables:
#   TEST_DATA=FOLDER    a separate test set in the layout of ChairV2/
#   RECIPE=NAME         another recipe
#   FOLD=0              no test split: train on two thirds, report on the third (0, 1 or 2)
set -euo pipefail
data=$1 fold=${FOLD:-} test_data=${TEST_DATA:-} recipe=${RECIPE:-chairs_cpu}
out=${2:-out/stbir_c${fold:+_fold$fold}}
export STBIR_DATA=$data

log() { printf '\n== %s\n' "$*" >&2; }
has_split() { grep -q "\"$1\"" "$out/shards.json"; }
[ -z "$fold" ] || [ -z "$test_data" ] || { echo "stbir_c.sh: FOLD and TEST_DATA exclude each other; set one" >&2; exit 2; }

log "prepare shards of the chairs and of the auxiliary data"
mkdir -p "$out"
python ray_jobs/prepare_shards.py --source "qmul:$data/ChairV2" --out "$out/shards" ${fold:+--folds 3} | tee "$out/shards.json"
aux=()
for source in manifest:ShoeV2_photos manifest:ShoeV1 sketchy:Sketchy; do
  kind=${source%:*} name=${source#*:}
  [ -d "$data/$name" ] || { log "$data/$name does not exist; training without it"; continue; }
  python ray_jobs/prepare_shards.py --source "$kind:$data/$name" --require text --out "$out/$name"
  aux+=("$out/$name")
done

train=train test=$out/shards split=test
if [ -n "$fold" ]; then
  split=fold$fold train=fold$(((fold + 1) % 3)),fold$(((fold + 2) % 3))
else
  ! has_split val || train=train,val
  if [ -n "$test_data" ]; then
    python ray_jobs/prepare_shards.py --source "qmul:$test_data" --split test --out "$out/test"
    test=$out/test
  elif ! has_split test; then
    split=$train
  fi
fi

# The recipe was chosen on folds; a tenth of 300 photos is too few to choose an epoch by, and missed in training.
log "train on $train"
python ray_jobs/train.py --recipe "$recipe" --shards "$out/shards" --train-split "$train" \
  --val-split none --aux-shards "${aux[@]}" --out "$out/checkpoint"
if [ "$split" = "$train" ]; then
  log "no report: all photos are training photos; set TEST_DATA=… or FOLD=0"
  exit
fi

log "gallery and report ($split)"
python ray_jobs/embed_gallery.py --checkpoint "$out/checkpoint" --shards "$test" --split "$split" --gallery "$out/gallery"
python ray_jobs/evaluate.py --checkpoint "$out/checkpoint" --shards "$test" --split "$split" --robustness --out "$out/report"
