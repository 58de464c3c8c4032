#!/usr/bin/env bash
# Trains on GKE: renders a JobSet (github.com/kubernetes-sigs/jobset, 0.8 or later) of one pod a
# node, and applies it with kubectl. When a pod fails, all start again from the newest checkpoint.
#
#   launch/gke.sh --name llama --image IMAGE --claim runs --tpu tpu-v5p-slice:4x4x4 \
#       configs/models/llama2-7b.yaml workdir=/runs/llama
#   launch/gke.sh --name llama --image IMAGE --claim runs --gpu nvidia-h100-80gb --nodes 4 \
#       configs/models/llama2-7b.yaml workdir=/runs/llama
#
#   --name NAME        of the JobSet
#   --image IMAGE      has jaxlm for its `python`, and the config where it is looked for
#   --claim CLAIM      PersistentVolumeClaim that all pods may write to, mounted at --mount; WORKDIR
#                      must lie in there
#   --mount DIR        (/runs)
#   --tpu KIND:TOPOLOGY[:CHIPS]  as the node pool has it; CHIPS of a node (4)
#   --slices S         TPU slices (1)
#   --gpu KIND         accelerator label of the node pool, instead of --tpu
#   --gpus G           GPUs of a node (8)
#   --nodes N          GPU nodes (1); those of a TPU slice follow from its topology
#   --restarts R       how often a run that failed starts again (3); a pod that was evicted, or
#                      stopped by a signal, does not count
#   --grace S          seconds between the signal to a pod and its end (180)
#   --verb VERB        run (all stages; the default), or train
#   --dry-run          print the manifest
#
# Logs: kubectl logs -l jobset.sigs.k8s.io/jobset-name=NAME --prefix; and WORKDIR/logs/host-K.log.
# To stop: kubectl delete jobset NAME.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

name="" image="" claim="" mount=/runs tpu="" slices=1 gpu="" gpus=8 nodes="" restarts=3 grace=180
verb=run dry=""
while (($#)); do
    case $1 in
        --name) word "$1" "${2-}"; name=$2; shift 2 ;;
        --image) word "$1" "${2-}"; image=$2; shift 2 ;;
        --claim) word "$1" "${2-}"; claim=$2; shift 2 ;;
        --mount) word "$1" "${2-}"; mount=$2; shift 2 ;;
        --tpu) word "$1" "${2-}"; tpu=$2; shift 2 ;;
        --slices) number "$1" "${2-}"; slices=$2; shift 2 ;;
        --gpu) word "$1" "${2-}"; gpu=$2; shift 2 ;;
        --gpus) number "$1" "${2-}"; gpus=$2; shift 2 ;;
        --nodes) number "$1" "${2-}"; nodes=$2; shift 2 ;;
        --restarts) [[ ${2-} == 0 ]] || number "$1" "${2-}"; restarts=$2; shift 2 ;;
        --grace) number "$1" "${2-}"; grace=$2; shift 2 ;;
        --verb) word "$1" "${2-}"; verb=$2; shift 2 ;;
        --dry-run) dry=1; shift ;;
        -h | --help) usage "launch/${0##*/}"; exit ;;
        -*) refuse "$1: no such option; see launch/gke.sh --help" ;;
        *) break ;;
    esac
done
(($#)) || refuse "give a config; see launch/gke.sh --help"
for option in name image claim; do
    [[ -n ${!option} ]] || refuse "--$option: not given; see launch/gke.sh --help"
done
# the longest name of a pod, NAME-workers-S-N-xxxxx, is that of a host: 63 letters
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    refuse "--name: '$name' is no name for a JobSet; up to 40 of a-z, 0-9 and -, a letter first"
[[ $verb == run || $verb == train ]] || refuse "--verb: '$verb' is neither run nor train"
[[ -n $tpu$gpu && (-z $tpu || -z $gpu) ]] || refuse "give one of --tpu and --gpu"
# YAML's own quotes: a ' is written twice
yaml() { printf "'%s'" "${1//\'/\'\'}"; }

find_python
workdir=$(folder_of "$@") || exit
[[ $workdir == "${mount%/}"/* ]] ||
    refuse "workdir: $workdir is not in $mount, which the pods share; give workdir=${mount%/}/NAME"

if [[ -n $tpu ]]; then
    [[ -z $nodes ]] || refuse "--nodes: those of a TPU slice follow from its topology; leave it out"
    IFS=: read -r kind topology chips <<<"$tpu"
    chips=${chips:-4}
    [[ $topology =~ ^[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*)?$ && $chips =~ ^[1-9][0-9]*$ ]] ||
        refuse "--tpu: '$tpu' is no KIND:TOPOLOGY[:CHIPS], such as tpu-v5p-slice:4x4x4"
    all=$((${topology//x/*}))
    ((all % chips == 0)) || refuse "--tpu: a topology of $all chips has no nodes of $chips"
    nodes=$((all / chips))
    annotations="
  annotations:
    # one slice a node pool
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"
    selector="cloud.google.com/gke-tpu-accelerator: $(yaml "$kind")
                cloud.google.com/gke-tpu-topology: $topology"
    device="google.com/tpu: $chips"
else
    ((slices == 1)) || refuse "--slices: for --tpu; give GPU nodes with --nodes"
    nodes=${nodes:-1}
    annotations=""
    selector="cloud.google.com/gke-accelerator: $(yaml "$gpu")"
    device="nvidia.com/gpu: $gpus"
fi

hosts=""
for ((s = 0; s < slices; s++)); do
    for ((n = 0; n < nodes; n++)); do
        hosts+=,$name-workers-$s-$n.$name
    done
done
hosts=${hosts:1}

# Python is the pod's first process, so that it gets the signal.
start="mkdir -p $(quoted "$workdir/logs")
export JAXLM_PROCESS=\$((JOBSET_INDEX * $nodes + JOB_COMPLETION_INDEX))
exec > >(tee -a $(quoted "$workdir/logs")/host-\$JAXLM_PROCESS.log) 2>&1
exec $(quoted python -m jaxlm "$verb" "$@")"

manifest() {
    cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name$annotations
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - name: stopped
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  replicatedJobs:
    - name: workers
      replicas: $slices
      template:
        spec:
          parallelism: $nodes
          completions: $nodes
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onPodConditions:
                  - type: DisruptionTarget
                    status: 'True'
              - action: FailJob
                onExitCodes:
                  operator: In
                  values: [143]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $grace
              nodeSelector:
                $selector
              containers:
                - name: jaxlm
                  image: $(yaml "$image")
                  command:
                    - bash
                    - -c
                    - |
                      ${start//$'\n'/$'\n'                      }
                  env:
                    - name: PYTHONUNBUFFERED
                      value: '1'
                    - name: JAXLM_PROCESSES
                      value: '$((slices * nodes))'
                    - name: JAXLM_COORDINATOR
                      value: ${hosts%%,*}:8476
                    - name: JAXLM_HOSTS
                      value: $hosts
                    - name: JOBSET_INDEX
                      valueFrom:
                        fieldRef:
                          fieldPath: metadata.labels['jobset.sigs.k8s.io/job-index']
                  ports:
                    - containerPort: 8476
                    - containerPort: 8477
                  resources:
                    limits:
                      $device
                  volumeMounts:
                    - name: runs
                      mountPath: $(yaml "$mount")
                    - name: shm
                      mountPath: /dev/shm
              volumes:
                - name: runs
                  persistentVolumeClaim:
                    claimName: $(yaml "$claim")
                - name: shm
                  emptyDir:
                    medium: Memory
END
}

if [[ -n $dry ]]; then
    manifest
    exit
fi
command -v kubectl >/dev/null || refuse "kubectl: not here; install it, and point it at the cluster"
manifest | kubectl apply -f -
