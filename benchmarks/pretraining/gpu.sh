#!/usr/bin/env bash
# The preset `small` on one GPU, and what a teacher costs a step there. Not run yet: no GPU was at hand.
#
#   benchmarks/pretraining/gpu.sh TEXT.jsonl[.gz|.xz] OUTPUT [minutes: 30 | whole]
#
# `whole` is the preset as it stands: 69 models, about 1.9e18 FLOPs, three hours at 200 TFLOP/s. `30` keeps its sizes and
# cuts tokens, weights and seeds, so that half an hour of one H200 is enough; it goes on where it was stopped.
set -euo pipefail
text=$1
output=$2
how=${3:-30}
cut=()
if [ "$how" = 30 ]; then
  cut=('teachers.tokens=[13107200,52428800]' student_tokens=26214400 'weights=[0.2,0.5,1.0]' 'seeds=[1]')
fi
train="corpus.train=[{kind: files, paths: ['$text'], on_broken: skip}]"
potstill lab pretraining --preset small --dry-run "$train" "${cut[@]}"
potstill lab pretraining --preset small --output "$output" "$train" "${cut[@]}"
python benchmarks/pretraining/step.py 30
