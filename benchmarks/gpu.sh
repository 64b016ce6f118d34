#!/usr/bin/env bash
# What one GPU shows: tests/test_gpu.py; a training step beside Hugging Face's; MFU by size; a profile (benchmarks/gpu.md).
#
#   PYTHON=.venv/bin/python benchmarks/gpu.sh CORPUS TOKENIZER WORK [check|time]
#
# TOKENIZER: a folder of `albert tokenizer`, 30,000 pieces. `check` makes data, runs the tests and fills the cache of kernels; `time`
# comes after it, on a GPU that does nothing else. A part that fails is named and stops no other.
set -uo pipefail
CORPUS=$1 TOKENIZER=$2 WORK=$3 STAGE=${4:-both}
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TORCHINDUCTOR_COMPILE_THREADS=4
mkdir -p "$WORK"

part() { # part NAME COMMAND...: its output in WORK/NAME.log
    local name=$1 begin=$SECONDS code=0
    shift
    "$@" > "$WORK/$name.log" 2>&1 < /dev/null || code=$?
    echo "$name: exit code $code after $((SECONDS - begin)) s"
}
bench() { "$PYTHON" -m benchmarks.train --dtype bf16 --together "$@"; }
base512() { bench --data "$WORK/512" --batch 256 --micro_batch_size 16 "$@"; }
base128() { bench --data "$WORK/128" --batch 1024 --micro_batch_size 64 "$@"; }
ours() { bench --data "$WORK/512" --contenders ours --size "$1" --micro_batch_size "$2" --batch $((2 * $2)) "${@:3}"; }

check() {
    for length in 512 128; do
        part "prepare_$length" "$PYTHON" -m launch prepare --input "$CORPUS" --tokenizer "$TOKENIZER" --max_seq_length $length \
            --dupe_factor 1 --output "$WORK/$length" &
    done
    wait

    # Kernels are compiled into their cache beside the tests, so that nothing waits for them later.
    part tests "$PYTHON" -m pytest -n 3 tests/test_gpu.py &
    part warm_compiled base512 --contenders hf_compiled --rounds 0 &
    for size in base large xxlarge; do part "warm_$size" ours $size 8 --layers 2 --rounds 0 & done
    wait
    tail -n 40 "$WORK/tests.log"
}

time_it() {
    part base_512 base512 --rounds 7
    part base_128 base128 --rounds 7 --contenders ours hf_eager hf_trainer
    part base_alone ours base 128 --rounds 5
    part large_alone ours large 64 --rounds 5
    part xxlarge_alone ours xxlarge 32 --rounds 5
    part profile "$PYTHON" -m launch launch --config configs/albert_base_v2.yaml --data "$WORK/512" --output "$WORK/run" --num_procs 1 \
        --logging.wandb disabled --training.global_batch_size 256 --training.micro_batch_size 128 --training.steps 12 \
        --schedule.warmup_steps 4 --schedule.total_steps 12 --logging.every_n_steps 4 --logging.profile_steps 2 \
        --training.max_validation_instances 256
    for name in base_512 base_128 base_alone large_alone xxlarge_alone; do tail -n 12 "$WORK/$name.log"; done
    cat "$WORK"/run/profile/*.txt
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    "$PYTHON" -c "import torch, transformers; print('torch', torch.__version__, 'transformers', transformers.__version__)"
}

[ "$STAGE" = time ] || check
[ "$STAGE" = check ] || time_it
