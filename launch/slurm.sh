#!/usr/bin/env bash
# Submits a run to Slurm: one process a node, which sees all GPUs of its node. WORKDIR and this
# folder (with its .venv) must be on a filesystem that all nodes share. Node K writes
# WORKDIR/logs/host-K.log, the job itself WORKDIR/logs/slurm-JOBID.log.
#
#   launch/slurm.sh --nodes 4 --gpus 8 --time 24:00:00 configs/models/llama3-8b.yaml workdir=/data/run
#
#   --nodes N       nodes (1)
#   --gpus G        GPUs of a node (8); 0: none, on the CPU
#   --time T        time limit of the job (24:00:00); what is not finished by then is queued again
#   --stop S        seconds before the limit at which the run is to write a checkpoint (180)
#   --restarts R    how often a run that failed is queued again (3); one that was stopped by the
#                   limit or preempted, or lost a node, always is
#   --verb VERB     run (all stages; the default), or train
#   --sbatch ARG    one more argument of sbatch, such as --partition=gpu; may be repeated
#   --dry-run       print what would be executed, here and by the job
#
# Relative paths are taken from the project's folder, wherever this is called from.
set -euo pipefail

if [[ ${1-} != --job ]]; then # the job runs a copy of this file, from another folder
    source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
fi

# The part on the nodes. Arguments: --job DRY RESTARTS LOGS PYTHON VERB CONFIG [KEY=VALUE]...
# Started by sbatch in the project's folder.
job() {
    local dry=$1 restarts=$2 logs=$3 python=$4 hosts port command status=0 asked=""
    shift 4
    if [[ -n $dry ]]; then
        hosts=HOSTS port=PORT
    else
        hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -s -d , -)
        port=$((10000 + SLURM_JOB_ID % 20000 * 2)) # two, that no other job of the node has
    fi
    # shellcheck disable=SC2016 # the shell of each task fills in SLURM_PROCID
    command=(
        srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1
        --output="$logs/host-%t.log" --open-mode=append
        env PYTHONUNBUFFERED=1 JAXLM_PROCESSES="${SLURM_JOB_NUM_NODES:-NODES}"
        JAXLM_COORDINATOR="${hosts%%,*}:$port" JAXLM_HOSTS="$hosts"
        bash -c 'JAXLM_PROCESS=$SLURM_PROCID exec "$@"' -
        "$python" -m jaxlm "$@"
    )
    if [[ -n $dry ]]; then
        quoted "${command[@]}"
        return
    fi
    # Slurm sends TERM to this shell alone (--signal=B:TERM); a preempted job gets it everywhere
    trap 'asked=1; kill -TERM "$steps" 2>/dev/null || true' TERM
    "${command[@]}" &
    local steps=$!
    while kill -0 "$steps" 2>/dev/null; do
        wait "$steps" || true # a trap ends it early
    done
    wait "$steps" || status=$?
    echo "$(date) job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): status $status"
    ((status)) || return 0
    # a job that somebody cancelled is no longer RUNNING, and stays away
    if [[ $(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T) == RUNNING ]] &&
        { [[ -n $asked ]] || ((status != 2 && ${SLURM_RESTART_COUNT:-0} < restarts)); }; then
        echo "queued again: scontrol requeue $SLURM_JOB_ID"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}

if [[ ${1-} == --job ]]; then
    shift
    job "$@"
    exit
fi

nodes=1 gpus=8 limit=24:00:00 stop=180 restarts=3 verb=run dry="" more=()
while (($#)); do
    case $1 in
        --nodes) number "$1" "${2-}"; nodes=$2; shift 2 ;;
        --gpus) [[ ${2-} == 0 ]] || number "$1" "${2-}"; gpus=$2; shift 2 ;;
        --time) word "$1" "${2-}"; limit=$2; shift 2 ;;
        --stop) number "$1" "${2-}"; stop=$2; shift 2 ;;
        --restarts) [[ ${2-} == 0 ]] || number "$1" "${2-}"; restarts=$2; shift 2 ;;
        --verb) word "$1" "${2-}"; verb=$2; shift 2 ;;
        --sbatch) word "$1" "${2-}"; more+=("$2"); shift 2 ;;
        --dry-run) dry=1; shift ;;
        -h | --help) usage "launch/${0##*/}"; exit ;;
        -*) refuse "$1: no such option; see launch/slurm.sh --help" ;;
        *) break ;;
    esac
done
(($#)) || refuse "give a config; see launch/slurm.sh --help"
[[ $verb == run || $verb == train ]] || refuse "--verb: '$verb' is neither run nor train"
find_python
logs=$(folder_of "$@")/logs || exit

submit=(
    sbatch --job-name=jaxlm --nodes="$nodes" --ntasks-per-node=1 --exclusive
    --time="$limit" --signal="B:TERM@$stop" --requeue --open-mode=append
    --chdir="$PWD" --output="$logs/slurm-%j.log"
)
((gpus == 0)) || submit+=(--gpus-per-node="$gpus")
submit+=(
    ${more[@]+"${more[@]}"} launch/slurm.sh
    --job "" "$restarts" "$logs" "$python" "$verb" "$@"
)
if [[ -n $dry ]]; then
    quoted "${submit[@]}"
    SLURM_JOB_NUM_NODES=$nodes job dry "$restarts" "$logs" "$python" "$verb" "$@"
    exit
fi
mkdir -p -- "$logs" # Slurm does not make it
exec "${submit[@]}"
