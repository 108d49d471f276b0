#!/bin/bash
# Train every recipe with every seed, side by side on one machine: a process for each model, which share its GPU.
#
#   [SEEDS="0 1 2"] [LM2=.venv/bin/lm2] benchmarks/train_on_gpu.sh OUT [RECIPE.json ...]
#
# The model of recipe R and seed S goes to OUT/R-sS, its log to OUT/R-sS.log. Called again, it goes on with what is not
# finished, from the last state that was saved (every 100 steps). Without recipes, it trains those of benchmarks/recipes:
# nine models. LM2_DATA_DIR must be set.
#
# Tested on CPUs only: it has not yet run on a GPU. One LM2 with a memory in four blocks took 0.1 to 0.9 s a step on an
# H200, because launching its small operations takes longer than computing them, so one process leaves a GPU mostly idle.
# Where nine do not disturb one another, each on a core of its own, 3,450 steps take 6 to 50 minutes: expect several
# calls of ten minutes.
set -u
out=${1:?"which folder shall the models go to? benchmarks/train_on_gpu.sh OUT [RECIPE.json ...]"}
shift
home=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- "$home"/benchmarks/recipes/*.json
export OMP_NUM_THREADS=1
mkdir -p "$out"

declare -A running
trap 'kill "${!running[@]}" 2>/dev/null' EXIT # where it is stopped, so are they
trap 'exit 1' INT TERM
for recipe in "$@"; do
    for seed in ${SEEDS:-0 1 2}; do
        model=$(basename "$recipe" .json)-s$seed
        ${LM2:-"$home/.venv/bin/lm2"} train "$recipe" --seed "$seed" --out "$out/$model" >"$out/$model.log" 2>&1 &
        running[$!]=$model
    done
done
failed=0
for process in "${!running[@]}"; do
    wait "$process" || { echo "${running[$process]} was not trained: see $out/${running[$process]}.log" >&2; failed=1; }
    unset "running[$process]"
done
exit $failed
