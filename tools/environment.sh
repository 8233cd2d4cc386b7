# Sourced by the scripts here: which environment they work in, and how they explain themselves.
#   repo    this repository
#   venv    FOCALNET_VENV, else the activated environment (not conda base), else .venv of this repository
#   own     "yes" if setup.sh made it (and so may change what is in it), else "no"
#   python  its interpreter
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
conda=${CONDA_PREFIX:-}
[ "${CONDA_DEFAULT_ENV:-}" != base ] || conda=
venv=${FOCALNET_VENV:-${VIRTUAL_ENV:-${conda:-$repo/.venv}}}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
made_here=$venv/made-by-focalnet-setup
own=no
[ ! -e "$made_here" ] || own=yes
python=$venv/bin/python

# usage [STATUS]: print the comment that the calling script opens with, and end; with status 0 if help was asked for.
usage() {
    [ "${1:-2}" = 0 ] || exec >&2
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit "${1:-2}"
}
case "${1:-}" in -h | --help) usage 0 ;; esac
