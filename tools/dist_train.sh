#!/usr/bin/env bash
# Train on several GPUs, or without any in several processes on the CPU:
#
#   bash tools/dist_train.sh CONFIG PROCESSES [flags of tools/train.py]
#
# On several machines, on each one: NNODES=2 NODE_RANK=0 MASTER_ADDR=host bash tools/dist_train.sh CONFIG 8
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$repo/tools/processes.sh"

[ $# -ge 2 ] || usage
run_processes "$2" "$repo/tools/train.py" "$1" --launcher pytorch "${@:3}"
