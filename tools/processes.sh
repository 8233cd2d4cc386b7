# Sourced by dist_train.sh and dist_test.sh, after environment.sh.

# run_processes COUNT SCRIPT [ARGUMENTS]: run a Python script in that many processes.
run_processes() {
    local place=(--standalone)
    if [ "${NNODES:-1}" != 1 ]; then
        place=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?}" --master-addr "${MASTER_ADDR:?}"
            --master-port "${PORT:-29500}")
    fi
    exec "$python" -m torch.distributed.run --nproc-per-node "$1" "${place[@]}" "${@:2}"
}
