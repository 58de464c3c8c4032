"""What slurm.sh, tpu_pod.sh and gke.sh would execute, and do with make-believe clusters."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CONFIG = "configs/quickstart.yaml"
SCRIPTS = ("local", "slurm", "tpu_pod", "gke")
POD = ["--name", "pod", "--zone", "us-east5-a", "--type", "v5p-16", "--runtime", "v2-alpha-tpuv5"]
GKE = ["--name", "llama", "--image", "registry/jaxlm:1", "--claim", "runs"]
TPU = [*GKE, "--tpu", "tpu-v5p-slice:2x2x4"]
SCHEMA = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())


def launch(
    script: str, *arguments: str, path: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A script, run from another folder; `path` comes before the PATH."""
    own = os.environ | {"PYTHON": sys.executable} | environment
    if path is not None:
        own["PATH"] = f"{path}:{own['PATH']}"
    return subprocess.run(
        [ROOT / "launch" / f"{script}.sh", *arguments],
        env=own, cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def printed(script: str, *arguments: str) -> list[list[str]]:
    """The lines of a dry run, as the words that bash would read."""
    result = launch(script, *arguments)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line, comments=True) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_tells_of_every_option(script: str) -> None:
    result = launch(script, "--help")
    assert result.returncode == 0
    text = (ROOT / "launch" / f"{script}.sh").read_text()
    options = {
        word.split(")")[0].strip()
        for word in text.splitlines()
        if word.startswith("        -") and ")" in word and "-*" not in word
    } - {"-h | --help"}
    assert len(options) >= 6
    assert [option for option in options if f"\n  {option} " not in result.stdout] == []


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("local", [], "local.sh: give a config"),
        ("local", ["-n", "zero", CONFIG], "local.sh: -n: 'zero' is no number above 0"),
        ("local", ["--nodes", "2", CONFIG], "local.sh: --nodes: no such option"),
        ("local", [CONFIG, "train.stepz=3"], "train.stepz: unknown key; did you mean train.steps?"),
        ("slurm", [CONFIG, "train.stepz=3"], "train.stepz: unknown key; did you mean train.steps?"),
        ("slurm", ["--verb", "eval", CONFIG], "--verb: 'eval' is neither run nor train"),
        ("tpu_pod", [CONFIG], "tpu_pod.sh: --name: not given"),
        ("gke", [*TPU, CONFIG], "is not in /runs, which the pods share; give workdir=/runs/NAME"),
        ("gke", [*TPU, "--gpu", "h100", CONFIG], "give one of --tpu and --gpu"),
        ("gke", [*GKE, "--tpu", "v5p", CONFIG, "workdir=/runs/a"], "no KIND:TOPOLOGY[:CHIPS]"),
        ("gke", [*TPU, "--name", "My_run", CONFIG], "--name: 'My_run' is no name for a JobSet"),
    ],
)
def test_bad_input_is_told_in_one_line(script: str, arguments: list[str], message: str) -> None:
    result = launch(script, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_slurm_dry_run() -> None:
    submitted, started = printed(
        "slurm", "--dry-run", "--nodes", "4", "--time", "8:00:00", "--restarts", "5",
        "--sbatch", "--partition=gpu", CONFIG, "workdir=/data/my run",
    )  # fmt: skip
    job = submitted.index("launch/slurm.sh")
    assert {
        "--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=1", "--time=8:00:00", "--requeue",
        "--signal=B:TERM@180", f"--chdir={ROOT}", "--output=/data/my run/logs/slurm-%j.log",
        "--partition=gpu",
    } <= set(submitted[1:job])  # fmt: skip
    assert submitted[0] == "sbatch"
    assert submitted[job + 1 :] == [
        "--job", "", "5", "/data/my run/logs", sys.executable, "run", CONFIG,
        "workdir=/data/my run",
    ]  # fmt: skip
    assert started[0] == "srun"
    assert "--output=/data/my run/logs/host-%t.log" in started
    assert "JAXLM_PROCESSES=4" in started
    assert started[-6:] == [
        sys.executable, "-m", "jaxlm", "run", CONFIG, "workdir=/data/my run"
    ]  # fmt: skip


def command(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (folder / name).chmod(0o755)


def slurm_job(tmp_path: Path, status: int, restarted: int, state: str = "RUNNING") -> list[str]:
    """What the batch script asks of Slurm when its two tasks end with this status."""
    bin, log = tmp_path / "bin", tmp_path / "log"
    command(bin, "scontrol", f'[[ $1 == show ]] && printf "n1\\nn2\\n" || echo "$@" >>{log}')
    command(bin, "squeue", f"echo {state}")
    # what is behind the options, once a task, as srun does
    command(bin, "srun", 'while [[ $1 == -* ]]; do shift; done\nSLURM_PROCID=1 "$@"')
    said = 'echo "$JAXLM_PROCESS of $JAXLM_PROCESSES at $JAXLM_COORDINATOR ($JAXLM_HOSTS): $*"'
    command(bin, "python", f"{said} >>{log}; exit {status}")
    copy = tmp_path / "spool" / "slurm_script"  # as Slurm has it
    copy.parent.mkdir(exist_ok=True)
    copy.write_text((ROOT / "launch" / "slurm.sh").read_text())
    result = subprocess.run(
        ["bash", copy, "--job", "", "3", str(tmp_path), "python", "train", "a b.yaml"],
        env=os.environ | {
            "PATH": f"{bin}:{os.environ['PATH']}", "SLURM_JOB_ID": "20007",
            "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2",
            "SLURM_RESTART_COUNT": str(restarted),
        },
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == status, result.stderr
    lines = log.read_text().splitlines()
    log.unlink()
    return lines


def test_slurm_job_is_queued_again(tmp_path: Path) -> None:
    ran = "1 of 2 at n1:10014 (n1,n2): -m jaxlm train a b.yaml"
    assert slurm_job(tmp_path, 0, 0) == [ran]
    assert slurm_job(tmp_path, 1, 2) == [ran, "requeue 20007"]
    assert slurm_job(tmp_path, 1, 3) == [ran], "three times are enough"
    assert slurm_job(tmp_path, 2, 0) == [ran], "a bad config stays one"
    assert slurm_job(tmp_path, 1, 0, "COMPLETING") == [ran], "somebody cancelled it"


def test_slurm_job_passes_the_stop_signal_on(tmp_path: Path) -> None:
    bin, log = tmp_path / "bin", tmp_path / "log"
    command(bin, "scontrol", f'[[ $1 == show ]] && echo n1 || echo "$@" >>{log}')
    command(bin, "squeue", "echo RUNNING")
    command(
        bin, "srun", f"trap 'kill $!; echo told >>{log}; exit 143' TERM; sleep 60 & echo up; wait"
    )
    process = subprocess.Popen(
        ["bash", ROOT / "launch/slurm.sh", "--job", "", "0", str(tmp_path), "python", "run", "c"],
        env=os.environ | {
            "PATH": f"{bin}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1",
        },
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert log.read_text().splitlines() == ["told", "requeue 7"]


def test_tpu_pod_dry_run() -> None:
    lines = printed(
        "tpu_pod", "--dry-run", *POD, "--spot", "--delete", "--setup", "sudo mount /runs",
        CONFIG, "workdir=/runs/my run",
    )  # fmt: skip
    create, describe, addresses, _, host, _, stop, delete = lines
    where = ["pod", "--zone=us-east5-a"]
    queued = ["gcloud", "compute", "tpus", "queued-resources"]
    assert create == [
        *queued, "create", *where, "--node-id=pod", "--accelerator-type=v5p-16",
        "--runtime-version=v2-alpha-tpuv5", "--spot",
    ]  # fmt: skip
    assert describe == [*queued, "describe", *where, "--format=value(state.state)"]
    assert addresses[-1] == "--format=value[delimiter=','](networkEndpoints[].ipAddress)"
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", *where]
    assert host[:8] == [*ssh, "--worker=K"]
    there = shlex.split(host[8].removeprefix("--command="))
    assert there[:6] == ["sudo", "mount", "/runs", "&&", "cd", "jaxlm"]
    assert there[-6:] == [
        ".venv/bin/python", "-m", "jaxlm", "run", CONFIG, "workdir=/runs/my run"
    ]  # fmt: skip
    assert host[9:] == [">>runs/pod/logs/host-K.log", "2>&1", "&"]
    assert stop[:8] == [*ssh, "--worker=all"]
    assert delete == [*queued, "delete", *where, "--force", "--quiet"]


def make_gcloud(tmp_path: Path) -> Path:
    """A gcloud with slices of two hosts, which are folders here. The first slice is preempted while
    host 1 runs; on the second, host 1 fails once."""
    bin = tmp_path / "bin"
    state, log = tmp_path / "state", tmp_path / "log"
    (tmp_path / "jaxlm" / ".venv" / "bin").mkdir(parents=True)
    command(
        tmp_path / "jaxlm" / ".venv" / "bin",
        "python",
        f'echo "host $JAXLM_PROCESS of $JAXLM_PROCESSES at $JAXLM_COORDINATOR: $*"\n'
        f"[[ $JAXLM_PROCESS == 1 ]] || exit 0\n"
        f"tries=$(grep -c ran {log}); echo ran >>{log}\n"
        f"[[ $tries != 0 ]] || {{ echo SUSPENDED >{state}; exit 137; }}\n"
        f"[[ $tries != 1 ]] || exit 1",
    )
    command(
        bin,
        "gcloud",
        f"""
case "$*" in
    *"queued-resources create"*) echo create >>{log}; echo PROVISIONING >{state} ;;
    *"queued-resources describe"*)
        [[ -e {state} ]] || exit 1
        cat {state}
        [[ $(cat {state}) != PROVISIONING ]] || echo ACTIVE >{state} ;;
    *"queued-resources delete"*) echo delete >>{log}; rm {state} ;;
    *"tpu-vm describe"*) echo 10.0.0.1,10.0.0.2 ;;
    *--worker=all*) echo stop >>{log} ;;
    *"tpu-vm ssh"*) cd {tmp_path}; exec bash -c "${{@: -1:1}}" ;;
esac
""".replace('bash -c "${@: -1:1}"', 'bash -c "$(printf "%s" "${@: -1:1}" | sed s/^--command=//)"'),
    )
    return bin


def test_tpu_pod_outlives_preemption_and_failure(tmp_path: Path) -> None:
    bin, logs = make_gcloud(tmp_path), tmp_path / "logs"
    result = launch(
        "tpu_pod", *POD, "--poll", "1", "--delete", "--logs", str(logs), CONFIG, path=bin
    )
    assert result.returncode == 0, result.stderr
    steps = (tmp_path / "log").read_text().split()
    assert steps == [
        "create", "ran", "stop",  # preempted
        "delete", "create", "ran", "stop",  # failed
        "ran", "delete",
    ]  # fmt: skip
    assert "the slice was preempted; asking for it again" in result.stderr
    assert "starting again (1 of 3)" in result.stderr
    told = (logs / "host-1.log").read_text().splitlines()
    assert told == [f"host 1 of 2 at 10.0.0.1:8476: -m jaxlm run {CONFIG}"] * 3


def manifest(*arguments: str) -> Any:
    result = launch("gke", "--dry-run", *arguments)
    assert result.returncode == 0, result.stderr
    return YAML(typ="safe").load(result.stdout)


def test_gke_manifest_of_tpu_slices() -> None:
    workdir = "workdir=/runs/it's a run"
    found = manifest(*TPU, "--slices", "2", "--restarts", "7", CONFIG, workdir)
    jsonschema.validate(found, SCHEMA)
    spec = found["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 7
    (workers,) = spec["replicatedJobs"]
    job = workers["template"]["spec"]
    assert (workers["replicas"], job["parallelism"], job["completions"]) == (2, 4, 4)
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 180
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x2x4",
    }
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values["JAXLM_PROCESSES"] == "8"
    assert values["JAXLM_COORDINATOR"] == "llama-workers-0-0.llama:8476"
    hosts = values["JAXLM_HOSTS"].split(",")
    assert hosts == [f"llama-workers-{s}-{n}.llama" for s in (0, 1) for n in range(4)]


def test_gke_pod_runs_its_place(tmp_path: Path) -> None:
    runs = tmp_path / "my runs"
    found = manifest(*TPU, "--mount", str(runs), CONFIG, f"workdir={runs}/a")
    (container,) = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ]
    command(tmp_path / "bin", "python", 'echo "$JAXLM_PROCESS: $*"')
    environment = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "JOBSET_INDEX": "1",
        "JOB_COMPLETION_INDEX": "2",
    }
    subprocess.run(container["command"], env=environment, check=True, timeout=60)
    log = runs / "a" / "logs" / "host-6.log"
    until = time.monotonic() + 10
    while not log.read_text() and time.monotonic() < until:
        time.sleep(0.05)  # tee outlives what it writes for
    assert log.read_text() == f"6: -m jaxlm run {CONFIG} workdir={runs}/a\n"


def test_gke_manifest_of_gpus() -> None:
    found = manifest(*GKE, "--gpu", "nvidia-h100-80gb", "--nodes", "2", CONFIG, "workdir=/runs/a")
    jsonschema.validate(found, SCHEMA)
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 8}}


def test_schema_refuses_what_the_cluster_would(tmp_path: Path) -> None:
    found = manifest(*TPU, CONFIG, "workdir=/runs/a")
    found["spec"]["failurePolicy"]["maxRestart"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxRestart"):
        jsonschema.validate(found, SCHEMA)
