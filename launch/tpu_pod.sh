#!/usr/bin/env bash
# Trains on a TPU pod slice: asks for it as a queued resource, waits until it is there, and runs one
# process on each of its hosts over ssh. A slice that was preempted is asked for again. The hosts'
# output goes to LOGS/host-K.log here.
#
# Every host must have the project in PROJECT (with its .venv), and WORKDIR on a filesystem that all
# share (Filestore, or a bucket mounted with gcsfuse); --setup can see to both.
#
#   launch/tpu_pod.sh --name llama --zone us-east5-a --type v5p-128 --runtime v2-alpha-tpuv5 \
#       --spot --delete configs/models/llama2-7b.yaml workdir=/mnt/runs/llama
#
#   --name NAME       of the queued resource and of its node; one that is there is used
#   --zone ZONE       where
#   --type TYPE       accelerator, such as v5p-128
#   --runtime V       version of the TPU software, such as v2-alpha-tpuv5
#   --spot            cheaper, and may be preempted
#   --project DIR     the project's folder on the hosts (jaxlm, in the home folder)
#   --setup COMMAND   done in the home folder of every host before each start
#   --logs DIR        here (runs/NAME/logs)
#   --restarts R      how often a run that failed starts again (3); one whose slice was preempted
#                     always does
#   --delete          gives the slice back when the run has ended, well or not
#   --poll S          seconds between two looks at the request (30)
#   --verb VERB       run (all stages; the default), or train
#   --dry-run         print what would be executed
#
# SIGTERM and SIGINT are passed on: the hosts write a checkpoint, and the status is 128 + the
# signal's number.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

name="" zone="" type="" runtime="" spot="" project=jaxlm setup="" logs="" restarts=3
delete="" poll=30 verb=run dry=""
while (($#)); do
    case $1 in
        --name) word "$1" "${2-}"; name=$2; shift 2 ;;
        --zone) word "$1" "${2-}"; zone=$2; shift 2 ;;
        --type) word "$1" "${2-}"; type=$2; shift 2 ;;
        --runtime) word "$1" "${2-}"; runtime=$2; shift 2 ;;
        --spot) spot=1; shift ;;
        --project) word "$1" "${2-}"; project=$2; shift 2 ;;
        --setup) word "$1" "${2-}"; setup=$2; shift 2 ;;
        --logs) word "$1" "${2-}"; logs=$2; shift 2 ;;
        --restarts) [[ ${2-} == 0 ]] || number "$1" "${2-}"; restarts=$2; shift 2 ;;
        --delete) delete=1; shift ;;
        --poll) number "$1" "${2-}"; poll=$2; shift 2 ;;
        --verb) word "$1" "${2-}"; verb=$2; shift 2 ;;
        --dry-run) dry=1; shift ;;
        -h | --help) usage "launch/${0##*/}"; exit ;;
        -*) refuse "$1: no such option; see launch/tpu_pod.sh --help" ;;
        *) break ;;
    esac
done
(($#)) || refuse "give a config; see launch/tpu_pod.sh --help"
for option in name zone type runtime; do
    [[ -n ${!option} ]] || refuse "--$option: not given; see launch/tpu_pod.sh --help"
done
[[ $verb == run || $verb == train ]] || refuse "--verb: '$verb' is neither run nor train"
logs=${logs:-runs/$name/logs}
arguments=("$@")

create=(
    gcloud compute tpus queued-resources create "$name" --zone="$zone" --node-id="$name"
    --accelerator-type="$type" --runtime-version="$runtime" ${spot:+--spot}
)
describe=(
    gcloud compute tpus queued-resources describe "$name" --zone="$zone"
    "--format=value(state.state)"
)
give_back=(
    gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet
)
addresses=(
    gcloud compute tpus tpu-vm describe "$name" --zone="$zone"
    "--format=value[delimiter=','](networkEndpoints[].ipAddress)"
)
ssh=(gcloud compute tpus tpu-vm ssh "$name" --zone="$zone")

# command_of K COUNT HOSTS: what host K executes. Its pid stays behind, for stop_hosts.
command_of() {
    printf '%s' "${setup:+$setup && }cd $(quoted "$project") && echo \$\$ >/tmp/jaxlm.pid && exec " \
        "$(quoted env PYTHONUNBUFFERED=1 JAXLM_PROCESSES="$2" JAXLM_PROCESS="$1" \
            JAXLM_COORDINATOR="${3%%,*}:8476" JAXLM_HOSTS="$3" \
            .venv/bin/python -m jaxlm "$verb" "${arguments[@]}")"
}
# The number may be another process's by now.
stop_command() {
    printf '%s' "pid=\$(cat /tmp/jaxlm.pid) && grep -q jaxlm /proc/\$pid/cmdline && " \
        "kill -$1 \$pid; true"
}

if [[ -n $dry ]]; then
    quoted "${create[@]}"
    printf '%s\n' "$(quoted "${describe[@]}") # each $poll s until it is ACTIVE"
    quoted "${addresses[@]}"
    echo "# for each host K of COUNT:"
    printf '%s >>%q 2>&1 &\n' \
        "$(quoted "${ssh[@]}" --worker=K --command="$(command_of K COUNT HOSTS)")" "$logs/host-K.log"
    echo "# to stop them:"
    quoted "${ssh[@]}" --worker=all --command="$(stop_command TERM)"
    [[ -z $delete ]] || quoted "${give_back[@]}"
    exit
fi
command -v gcloud >/dev/null || refuse "gcloud: not here; install the Google Cloud CLI"
mkdir -p -- "$logs"

state() { "${describe[@]}" 2>/dev/null || echo NONE; }

# Returns when the slice is there; one that cannot come any more is asked for anew.
obtain() {
    local now told=""
    while :; do
        now=$(state)
        [[ $now == "$told" ]] || say "$name: $now"
        told=$now
        case $now in
            ACTIVE) return ;;
            NONE) "${create[@]}" ;;
            FAILED | SUSPENDED) "${give_back[@]}" ;;
        esac
        [[ -z $asked ]] || return 0
        sleep "$poll" &
        wait $! || true
    done
}

asked=""
stop_hosts() { "${ssh[@]}" --worker=all --command="$(stop_command "$1")" >/dev/null 2>&1 || true; }
trap 'asked=TERM; stop_hosts TERM' TERM
trap 'asked=INT; stop_hosts INT' INT

# Runs the hosts once; sets $status.
attempt() {
    local hosts count k pid running pids=() failed=""
    hosts=$("${addresses[@]}")
    count=$(tr -cd , <<<"$hosts" | wc -c)
    count=$((count + 1)) status=0
    say "$count hosts; logs: $logs/host-*.log"
    for ((k = 0; k < count; k++)); do
        set -m # Ctrl-C reaches the hosts through the trap alone
        "${ssh[@]}" --worker="$k" --command="$(command_of "$k" "$count" "$hosts")" \
            >>"$logs/host-$k.log" 2>&1 </dev/null &
        set +m
        pids+=("$!")
    done
    while ((${#pids[@]})); do
        running=()
        for pid in "${pids[@]}"; do
            if kill -0 "$pid" 2>/dev/null; then
                running+=("$pid")
                continue
            fi
            local code=0
            wait "$pid" || code=$?
            if ((code)) && [[ -z $failed ]]; then
                status=$code failed=1
                # on a broken connection the process goes on there, and would be in the way
                [[ -n $asked ]] || stop_hosts KILL
            fi
        done
        pids=(${running[@]+"${running[@]}"})
        sleep 0.2 || true
    done
}

tried=0 status=0
while :; do
    obtain
    if [[ -n $asked ]]; then
        status=$((128 + $(kill -l "$asked")))
        break
    fi
    attempt
    if ((status == 0)) || [[ -n $asked ]]; then
        break
    fi
    say "a host ended with status $status; see $logs"
    if [[ $(state) == ACTIVE ]]; then
        if ((status == 2 || tried == restarts)); then
            break
        fi
        tried=$((tried + 1))
        say "starting again ($tried of $restarts)"
    else
        say "the slice was preempted; asking for it again"
    fi
done
[[ -z $delete ]] || "${give_back[@]}"
exit "$status"
