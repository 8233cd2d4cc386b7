#!/usr/bin/env bash
# Set up, lint, check types and the direction of imports, build the documents' site in build/site, and run the whole test suite.
# Arguments go to pytest: `bash tools/check.sh -k modulation`.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$repo/tools/processes.sh"
bash "$repo/tools/setup.sh"
cd "$repo"

"$python" -m ruff check .
"$python" -m ruff format --check .
"$venv/bin/lint-imports" --no-logo
# Both take long, and one core.
"$python" -m mypy --no-error-summary &
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict --quiet
wait $!
fill_caches
# One thread a process: the processes already fill the cores.
OMP_NUM_THREADS=1 "$python" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
