#!/usr/bin/env bash
# Make an environment in which everything here runs: focalnet-backbone, detectron2, OpenMMLab, the test tools.
#
#   bash tools/setup.sh                       into .venv of this repository, or into the activated environment
#   FOCALNET_VENV=path bash tools/setup.sh    into that environment (made if it is not there)
#   PYTHON=python3.12 bash tools/setup.sh     with that interpreter, when an environment is to be made
#
# Running it again takes seconds if all is there, and repairs an interrupted run. In an environment of yours,
# nothing that is installed is changed, setuptools apart: your torch, detectron2 and mmcv stay.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# = 0 ] || usage

fail() {
    echo "setup: $*" >&2
    exit 1
}

# Python 3.10 or newer: $PYTHON if given, else the first that fits.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.10 python}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "needs Python 3.10 or newer with the venv module; found ${PYTHON:-$(python3 --version 2>&1 || true)}." \
        "Name one with PYTHON=path."
}

# Compile what was installed, by all cores, where pip would by one. Tests of others' packages are never run.
compile_all() {
    echo "    Compiling"
    # Some files are written for another Python.
    "$python" -m compileall -q -j 0 -x '/site-packages/.*/tests?/' "$purelib" >/dev/null 2>&1 || true
}

# Say in one line why a step failed, and end.
explain_failure() {
    local log=$venv/setup.log
    # A full disk had no room for the log either.
    if grep -q 'No space left on device' "$log" || [ "$(df -Pk "$venv" | awk 'NR == 2 {print $4}')" -lt 10240 ]; then
        fail "the disk is full ($(df -h "$venv" | awk 'NR == 2 {print $4}') left at $venv); about 9 GB are needed."
    elif grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Temporary failure in name|Network is unreachable|ProxyError|Connection (refused|reset)' "$log"; then
        fail "no network, or no package index answers; run it again when there is one. Details: $log"
    elif grep -q 'The conflict is caused by' "$log"; then
        fail "what $venv has conflicts with what is needed:" \
            "$(sed -n '/The conflict is caused by/,/^ *$/s/^ \{1,\}\([^ ]\)/\1/p' "$log" | paste -sd ';'). Details: $log"
    fi
    fail "$1: $(grep -E '^ *E(RROR|rror)' "$log" | tail -n 1). Details: $log"
}

# Run pip, showing what it fetches and builds.
run_pip() {
    # shellcheck disable=SC2086  # No argument, or one.
    "$python" -m pip --disable-pip-version-check install $compiling "$@" 2>&1 | tee -a "$venv/setup.log" 2>/dev/null |
        sed -nuE 's/^ *((Downloading|Using cached) [^ ]+\.(whl|tar\.gz)|Building wheel|Installing collected).*/    \1/p' |
        sed -u 's#https\?://[^ ]*/##' || explain_failure "pip failed"
}

export PIP_NO_INPUT=1 PYTHONWARNINGS=ignore

if ! "$python" -m pip --version >/dev/null 2>&1; then
    if [ "$own" = no ] && [ -e "$venv" ]; then
        fail "$venv is there but holds no Python environment with pip."
    fi
    interpreter=$(find_python)
    echo "[1/4] Making $venv with $("$interpreter" --version)"
    own=yes
    mkdir -p "$venv" 2>/dev/null && touch "$made_here" 2>/dev/null || fail "cannot write to $venv."
    "$interpreter" -m venv "$venv" >"$venv/setup.log" 2>&1 ||
        explain_failure "could not make an environment at $venv"
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "needs Python 3.10 or newer; $venv has $("$python" --version)."
inspect() { "$python" "$repo/tools/inspect_environment.py" "$1" --own "$own" --repo "$repo"; }

missing=$(inspect missing)
if [ -z "$missing" ]; then
    echo "Set-up is complete: $venv"
    exit 0
fi
purelib=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
compiling=
if [ "$own" = yes ]; then
    compiling=--no-compile
else
    echo "Filling in what $venv lacks; what it has stays as it is."
fi
: >"$venv/setup.log"
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
inspect constraints >"$wanted"
inspect repair

# The pip of Python 3.11 takes a minute longer to find out what fits.
[ "$own" = no ] || run_pip "pip>=25"

echo "[2/4] PyTorch (a download of up to 3 GB the first time)"
run_pip -c "$wanted" torch torchvision

echo "[3/4] This package, OpenMMLab, and what the tests compare with"
extras=detectron2,openmmlab,mmpretrain,labels,ray,shards,viz,export,serve,dev,docs
case " $missing " in *" mmcv-lite "*) extras+=,mmcv-lite ;; esac
run_pip -c "$wanted" -e "$repo[$extras]"

case " $missing " in
*" sal-detectron2 "*)
    echo "[4/4] detectron2 (its Python part; torchvision has the operators)"
    run_pip -c "$wanted" --no-deps --upgrade --only-binary=:all: --python-version 3.10 --platform linux_x86_64 \
        --implementation cp --target "$purelib" sal-detectron2
    ;;
*) echo "[4/4] detectron2 is there" ;;
esac
[ "$own" = no ] || compile_all

missing=$(inspect missing)
[ -z "$missing" ] || fail "still missing after the installation: $missing. Details: $venv/setup.log"
echo "Set-up is complete: $venv"
