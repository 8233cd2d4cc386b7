#!/usr/bin/env bash
# Test on several GPUs, or without any in several processes on the CPU:
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [flags of tools/test.py]
#
# On several machines, on each one: NNODES=2 NODE_RANK=0 MASTER_ADDR=host bash tools/dist_test.sh CONFIG WEIGHTS 8
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$repo/tools/processes.sh"

[ $# -ge 3 ] || usage
run_processes "$3" "$repo/tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
