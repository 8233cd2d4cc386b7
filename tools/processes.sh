# Sourced by dist_train.sh and dist_test.sh, after environment.sh.

# Print the comment that the calling script opens with.
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# run_processes COUNT SCRIPT [ARGUMENTS]: run a Python script in that many processes.
run_processes() {
    local place=(--standalone)
    if [ "${NNODES:-1}" != 1 ]; then
        place=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?}" --master-addr "${MASTER_ADDR:?}"
            --master-port "${PORT:-29500}")
    fi
    exec "$python" -m torch.distributed.run --nproc-per-node "$1" "${place[@]}" "${@:2}"
}
