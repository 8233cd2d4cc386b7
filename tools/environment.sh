# Sourced by the scripts here: which environment they work in.
#   repo    this repository
#   venv    FOCALNET_VENV, else the activated environment (not conda base), else .venv of this repository
#   own     "yes" if that is the repository's own .venv
#   python  its interpreter
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
conda=${CONDA_PREFIX:-}
[ "${CONDA_DEFAULT_ENV:-}" != base ] || conda=
venv=${FOCALNET_VENV:-${VIRTUAL_ENV:-${conda:-$repo/.venv}}}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
own=no
if [ "$venv" = "$repo/.venv" ] || [ "$venv" -ef "$repo/.venv" ]; then own=yes; fi
python=$venv/bin/python
