#!/usr/bin/env bash
# Test and measure everything on this machine's GPU, in under 8 minutes, and write one report.
#
#   bash tools/gpu_check.sh                            the report is outputs/gpu_check.md
#   bash tools/gpu_check.sh --out FILE [--force]       ... or FILE
#   bash tools/gpu_check.sh --device cpu --quick       next to nothing, on the CPU, to see that all works
#
# Needs PyTorch and what the package depends on; pytest, timm, transformers, triton and matplotlib serve a part each, and
# what is missing is named and left out. Nothing is installed or downloaded. The interpreter is FOCALNET_VENV's, else that
# of the activated environment or of .venv here, else python3. The exit status is 0 if all parts ended well, else 1.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ -x "$python" ] || python=python3
export PYTHONPATH=$repo${PYTHONPATH:+:$PYTHONPATH}
exec "$python" "$repo/tools/gpu_check.py" "$@"
