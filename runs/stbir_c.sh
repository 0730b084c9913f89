#!/usr/bin/env bash
# STBIR-C: the real chairs (QMUL ChairV2 with captions), trained on a CPU with recipe chairs_cpu.
#   bash runs/stbir_c.sh DATA [FOLDER]
# DATA is a folder with ChairV2/ and weights/, and with what there is of ShoeV2_photos/ (captioned photos), ShoeV1/ and
# Sketchy/ (with sketches and machine-written captions): the first two stages learn from these too.
# All of ChairV2 but its test split is trained on; the figures are of the test split. It may also lie apart:
#   TEST_DATA=FOLDER bash runs/stbir_c.sh DATA       FOLDER in the layout of ChairV2/, all of it the test split
#   RECIPE=chairs_cpu bash runs/stbir_c.sh DATA   another recipe
#   FOLD=0 bash runs/stbir_c.sh DATA                 no test split: train on two thirds, report on the third (0, 1 or 2)
set -euo pipefail
data=$1 fold=${FOLD:-} test_data=${TEST_DATA:-} recipe=${RECIPE:-chairs_cpu}
out=${2:-out/stbir_c${fold:+_fold$fold}}
export STBIR_DATA=$data

say() { printf '\n== %s\n' "$*" >&2; }
has() { grep -q "\"$1\"" "$out/shards.json"; } # whether the chairs have such a split
[ -z "$fold" ] || [ -z "$test_data" ] || { echo "stbir_c.sh: FOLD, TEST_DATA: give one or the other" >&2; exit 2; }

say "shards of the chairs, and of other pairs for the first two stages"
mkdir -p "$out"
python ray_jobs/prepare_shards.py --source "qmul:$data/ChairV2" --out "$out/shards" ${fold:+--folds 3} | tee "$out/shards.json"
extra=()
for source in manifest:ShoeV2_photos manifest:ShoeV1 sketchy:Sketchy; do
  kind=${source%:*} name=${source#*:}
  [ -d "$data/$name" ] || { say "$data/$name is not there: training goes without"; continue; }
  python ray_jobs/prepare_shards.py --source "$kind:$data/$name" --requires text --out "$out/$name"
  extra+=("$out/$name")
done

train=train test=$out/shards split=test
if [ -n "$fold" ]; then
  split=fold$fold train=fold$(((fold + 1) % 3)),fold$(((fold + 2) % 3))
else
  ! has val || train=train,val
  if [ -n "$test_data" ]; then
    python ray_jobs/prepare_shards.py --source "qmul:$test_data" --split test --out "$out/test"
    test=$out/test
  elif ! has test; then
    split=$train
  fi
fi

say "train on $train"
python ray_jobs/train.py --recipe "$recipe" --shards "$out/shards" --split "$train" \
  --extra-shards "${extra[@]}" --out "$out/checkpoint"
if [ "$split" = "$train" ]; then
  say "no photo is left to report on: all were trained on. TEST_DATA=… or FOLD=0 gives figures"
  exit
fi

say "gallery and report ($split)"
python ray_jobs/embed_gallery.py --checkpoint "$out/checkpoint" --shards "$test" --split "$split" --gallery "$out/gallery"
python ray_jobs/evaluate.py --checkpoint "$out/checkpoint" --shards "$test" --split "$split" --robustness --out "$out/report"
