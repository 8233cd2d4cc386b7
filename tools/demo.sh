#!/usr/bin/env bash
# Set up, then show what there is: pictures and numbers go to outputs/demo.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
bash "$repo/tools/setup.sh"
out=$repo/outputs/demo

"$python" "$repo/tools/demo_pyramids.py" --out "$out"
