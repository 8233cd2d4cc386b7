# Sourced by dist_train.sh, dist_test.sh and check.sh, after environment.sh.

# yapf, which mmengine imports, caches its grammar at its first import, and a process that imports it just then reads
# half a file: so before several processes do.
fill_caches() { "$python" -c "import yapf"; }

# run_processes COUNT SCRIPT CONFIG [ARGUMENTS]: run a Python script in that many processes.
run_processes() {
    local place=(--standalone)
    case $1 in
    *[!0-9]* | '' | 0)
        echo "$(basename "$0"): PROCESSES must be a number of at least 1, got '$1'" >&2
        exit 2
        ;;
    esac
    # What a process answers to, torchrun follows with a page of its own.
    if [ ! -f "$3" ]; then
        echo "$(basename "$0"): no config file $3" >&2
        exit 2
    fi
    if [ "${NNODES:-1}" != 1 ]; then
        place=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?}" --master-addr "${MASTER_ADDR:?}"
            --master-port "${PORT:-29500}")
    fi
    fill_caches
    exec "$python" -m torch.distributed.run --nproc-per-node "$1" "${place[@]}" "${@:2}"
}
