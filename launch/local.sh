#!/usr/bin/env bash
# Trains with several processes on this host. When one dies, the others are stopped and all start
# again from the newest checkpoint. Each writes WORKDIR/logs/host-K.log.
#
#   launch/local.sh -n 2 configs/quickstart.yaml train.steps=500
#
#   -n N            processes (1). GPUs that are here are shared out evenly (CUDA_VISIBLE_DEVICES,
#                   or all); without GPUs they train on the CPU, over gloo
#   --devices D     virtual CPU devices a process; no GPU is used then
#   --verb VERB     run (all stages; the default), or train
#   --restarts R    how often a run that failed starts again (3). A bad config (status 2) does not
#   --port P        of the coordinator; P + 1 is used too (two that are free)
#   --dry-run       print what would be executed
#
# SIGTERM and SIGINT are passed on: a checkpoint is written, and the status is 128 + the signal's
# number. Else it is that of the process that failed first, or 0.
# Relative paths are taken from the project's folder, wherever this is called from.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

grace=10 # seconds from SIGTERM to SIGKILL for those that outlive a failure
count=1 devices="" verb=run restarts=3 port="" dry=""
while (($#)); do
    case $1 in
        -n) number "$1" "${2-}"; count=$2; shift 2 ;;
        --devices) number "$1" "${2-}"; devices=$2; shift 2 ;;
        --verb) word "$1" "${2-}"; verb=$2; shift 2 ;;
        --restarts) [[ ${2-} == 0 ]] || number "$1" "${2-}"; restarts=$2; shift 2 ;;
        --port) number "$1" "${2-}"; port=$2; shift 2 ;;
        --dry-run) dry=1; shift ;;
        -h | --help) usage "launch/${0##*/}"; exit ;;
        -*) refuse "$1: no such option; see launch/local.sh --help" ;;
        *) break ;;
    esac
done
(($#)) || refuse "give a config; see launch/local.sh --help"
[[ $verb == run || $verb == train ]] || refuse "--verb: '$verb' is neither run nor train"
find_python

gpus=()
if [[ -z $devices ]]; then
    if [[ -n ${CUDA_VISIBLE_DEVICES-} ]]; then
        IFS=, read -r -a gpus <<<"$CUDA_VISIBLE_DEVICES"
    elif [[ -z ${CUDA_VISIBLE_DEVICES+set} ]] && command -v nvidia-smi >/dev/null; then
        while read -r index; do
            gpus+=("$index")
        done < <(nvidia-smi --query-gpu=index --format=csv,noheader)
    fi
    ((${#gpus[@]} % count == 0)) ||
        refuse "-n $count: the ${#gpus[@]} GPUs cannot be shared out evenly"
fi

# command_of K: sets $command
command_of() {
    local hosts="" i
    for ((i = 0; i < count; i++)); do
        hosts+=,localhost
    done
    command=(
        env PYTHONUNBUFFERED=1 JAXLM_PROCESSES="$count" JAXLM_PROCESS="$1"
        JAXLM_COORDINATOR="127.0.0.1:$port" JAXLM_HOSTS="${hosts:1}"
    )
    if ((${#gpus[@]})); then
        local each=$((${#gpus[@]} / count)) own
        own=$(IFS=,; printf '%s' "${gpus[*]:$(($1 * each)):each}")
        command+=(CUDA_VISIBLE_DEVICES="$own")
    else
        command+=(JAX_PLATFORMS=cpu)
    fi
    if [[ -n $devices ]]; then
        command+=(XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
    fi
    command+=("$python" -m jaxlm "$verb" "${arguments[@]}")
}

arguments=("$@")
folder=$(folder_of "${arguments[@]}") || exit
logs=$folder/logs
own_port=${port:+1}

if [[ -n $dry ]]; then
    port=${port:-PORT}
    for ((k = 0; k < count; k++)); do
        command_of "$k"
        printf '%s >>%q 2>&1 &\n' "$(quoted "${command[@]}")" "$logs/host-$k.log"
    done
    exit
fi

mkdir -p -- "$logs"
pids=() asked=""
# pass_on SIGNAL: to every process that is there
pass_on() {
    local pid
    for pid in ${pids[@]+"${pids[@]}"}; do
        kill -s "$1" -- "$pid" 2>/dev/null || true
    done
}
# Of each process the whole group: what prepares data has processes of its own.
kill_all() {
    local pid
    for pid in ${pids[@]+"${pids[@]}"}; do
        kill -s KILL -- "-$pid" 2>/dev/null || true
    done
}
trap 'asked=TERM; pass_on TERM' TERM
trap 'asked=INT; pass_on INT' INT
trap kill_all EXIT

# Runs them once. Sets $status and $failed (which failed first, or empty).
attempt() {
    local k command pid running kill_at=""
    [[ -n $own_port ]] || port=$(free_port)
    pids=() status=0 failed=""
    for ((k = 0; k < count; k++)); do
        command_of "$k"
        set -m # a process group for each, so that a terminal's Ctrl-C comes from here alone
        "${command[@]}" >>"$logs/host-$k.log" 2>&1 </dev/null &
        set +m
        pids+=("$!")
    done
    [[ -z $asked ]] || pass_on "$asked" # it came while they were started
    while ((${#pids[@]})); do
        running=()
        for pid in "${pids[@]}"; do
            if kill -0 "$pid" 2>/dev/null; then
                running+=("$pid")
                continue
            fi
            local code=0
            wait "$pid" 2>/dev/null || code=$?
            if ((code)) && [[ -z $failed ]]; then
                status=$code failed=$pid
                # those that were stopped by a signal leave together, by themselves
                if [[ -z $asked ]] && ((code != 143 && code != 130)); then
                    pass_on TERM
                    kill_at=$((SECONDS + grace))
                fi
            fi
        done
        pids=(${running[@]+"${running[@]}"})
        if [[ -n $kill_at ]] && ((SECONDS >= kill_at)); then
            kill_all
        fi
        sleep 0.2 || true
    done
}

say "logs: $logs/host-*.log"
for ((tried = 0; ; tried++)); do
    attempt
    ((status)) || exit 0
    [[ -z $asked ]] || exit "$status"
    say "a process ended with status $status; the logs end with"
    for ((k = 0; k < count; k++)); do
        tail -n 2 -- "$logs/host-$k.log" | sed "s/^/  $k: /" >&2
    done
    if ((status == 2 || tried == restarts)); then
        exit "$status"
    fi
    say "starting again ($((tried + 1)) of $restarts)"
done
