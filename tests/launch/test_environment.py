"""How launch/environment.sh finds a Python and when it installs, with make-believe commands."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"

# The commands that the script itself needs. None of the folders that hold them is on the PATH,
# since a Python lies there, too.
NEEDED = ("bash", "cat", "cksum", "cp", "dirname", "env", "flock", "mkdir", "pwd", "rm")


def write_command(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def write_python(path: Path, version: str) -> Path:
    """A command that answers the probe as the Python of this version would, and can do no more."""
    return write_command(path, f'echo "ok {version} {path}"')


class Machine:
    """A project folder (with a space in its name), a home folder and a PATH, all empty."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "the project"
        self.home = folder / "home"
        self.bin = folder / "bin"
        shutil.copytree(LAUNCH, self.root / "launch")
        (self.root / "pyproject.toml").write_text("[project]\n")
        (self.root / "constraints.txt").write_text("jax==1\n")
        self.home.mkdir()
        self.bin.mkdir()
        for name in NEEDED:
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        self.environment = {"PATH": str(self.bin), "HOME": str(self.home)}

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a line of bash after sourcing the script, from a folder that is not the project's."""
        return subprocess.run(
            ["bash", "-c", f'source "$1"/launch/environment.sh; {script}', "-", str(self.root)],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def found(self) -> str:
        result = self.run('find_python && echo "$version $python"')
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_places_are_tried_in_order(machine: Machine, tmp_path: Path) -> None:
    pyenv = write_python(machine.home / ".pyenv/versions/3.12.4/bin/python3", "3.12.4")
    assert machine.found() == f"3.12.4 {pyenv}"

    on_path = write_python(machine.bin / "python3", "3.13.1")
    assert machine.found() == f"3.13.1 {on_path}"

    of_uv = write_python(tmp_path / "uv's" / "python3.12", "3.12.9")
    write_command(machine.bin / "uv", f'echo "{of_uv}"')
    assert machine.found() == f"3.12.9 {of_uv}"

    active = write_python(tmp_path / "active" / "bin" / "python", "3.14.0")
    machine.environment["VIRTUAL_ENV"] = str(tmp_path / "active")
    assert machine.found() == f"3.14.0 {active}"


def test_tested_version_comes_first_on_the_path(machine: Machine) -> None:
    for name in ("python3", "python3.14", "python3.13"):
        write_python(machine.bin / name, "3.14.0")
    expected = write_python(machine.bin / "python3.12", "3.12.0")
    assert machine.found() == f"3.12.0 {expected}"


def test_command_that_does_not_run_does_not_count(machine: Machine, tmp_path: Path) -> None:
    # As a pyenv shim does for a version that is installed but not chosen.
    write_command(machine.bin / "python3.12", 'echo "command not found" >&2; exit 127')
    write_command(machine.bin / "python3.13", "exit 0")
    write_command(machine.bin / "uv", "exit 2")
    machine.environment["VIRTUAL_ENV"] = str(tmp_path / "gone")
    later = tmp_path / "later"
    expected = write_python(later / "python3.12", "3.12.1")
    machine.environment["PATH"] += f":{later}"
    assert machine.found() == f"3.12.1 {expected}"


def test_pyenv_root_is_heeded(machine: Machine, tmp_path: Path) -> None:
    expected = write_python(tmp_path / "own pyenv/versions/3.13.0/bin/python3", "3.13.0")
    machine.environment["PYENV_ROOT"] = str(tmp_path / "own pyenv")
    assert machine.found() == f"3.13.0 {expected}"


def test_uv_downloads_only_when_there_is_nothing_else(machine: Machine) -> None:
    downloaded = machine.home / "downloaded"
    write_command(
        machine.bin / "uv",
        f'if [[ $2 == install ]]; then echo "ok 3.12.9" >"{downloaded}"; exit; fi\n'
        f'if [[ -e "{downloaded}" ]]; then echo "{machine.home}/python"; else exit 2; fi',
    )
    write_python(machine.home / "python", "3.12.9")
    assert machine.found() == f"3.12.9 {machine.home}/python"
    downloaded.unlink()
    on_path = write_python(machine.bin / "python3", "3.13.0")
    assert machine.found() == f"3.13.0 {on_path}"
    assert not downloaded.exists()


def test_real_python_answers_the_probe_with_what_lies_underneath(machine: Machine) -> None:
    (machine.bin / "python3").symlink_to(sys.executable)
    version = ".".join(map(str, sys.version_info[:3]))
    found_version, _, executable = machine.found().partition(" ")
    assert found_version == version
    # Not the symlink, nor the virtual environment that the tests run in.
    prefixes = "import sys; print(sys.prefix == sys.base_prefix)"
    answer = subprocess.run([executable, "-c", prefixes], capture_output=True, text=True)
    assert answer.stdout.strip() == "True"


def test_says_what_is_wrong_and_what_to_install(machine: Machine) -> None:
    write_command(machine.bin / "python3", 'echo "is 3.11.7"')
    write_command(machine.bin / "python3.13", 'echo "is 3.13.1 without venv (apt install ...)"')
    result = machine.run("make_environment test")
    assert result.returncode == 1
    assert f"{machine.bin}/python3 (on the PATH) is 3.11.7" in result.stderr
    assert f"{machine.bin}/python3.13 (on the PATH) is 3.13.1 without venv" in result.stderr
    assert "apt install python3.12 python3.12-venv" in result.stderr
    assert not (machine.root / ".venv").exists()


def test_message_where_there_is_no_python_at_all(machine: Machine) -> None:
    result = machine.run("make_environment test")
    assert result.returncode == 1
    assert result.stderr.startswith("No Python >= 3.12 was found.\nInstall one of these")


@pytest.fixture
def installing(machine: Machine) -> Machine:
    """A machine whose python3 makes a .venv that notes in `log` what it is asked to do."""
    log = machine.home / "log"
    body = f"""
case "$*" in
    *"-m venv"*)
        echo "venv $*" >>"{log}"
        mkdir -p .venv/bin
        cp -p "$0" .venv/bin/python
        : >.venv/pyvenv.cfg ;;
    *"-m pip"*)
        echo "pip $*" >>"{log}"
        exit "$(cat "{machine.home}/pip-status")" ;;
    *) echo "ok 3.12.1 {machine.bin}/python3" ;;
esac
"""
    write_command(machine.bin / "python3", body)
    (machine.home / "pip-status").write_text("0")
    return machine


def done(machine: Machine, extras: str = "test") -> list[str]:
    """The first words of what one more call of make_environment asks for."""
    log = machine.home / "log"
    log.unlink(missing_ok=True)
    result = machine.run(f"make_environment {extras}")
    assert result.returncode == int((machine.home / "pip-status").read_text()), result.stderr
    assert "Python 3.12.1" in result.stderr
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[0] for line in lines]


def test_second_call_installs_nothing(installing: Machine) -> None:
    assert done(installing) == ["venv", "pip"]
    assert done(installing) == []
    assert done(installing, "test quickstart") == ["venv", "pip"]
    assert done(installing, "quickstart") == []


def test_installs_the_named_extras_at_pinned_versions(installing: Machine) -> None:
    done(installing, "test quickstart")
    pip = (installing.home / "log").read_text().splitlines()[-1]
    assert pip.endswith("--constraint constraints.txt --editable .[test,quickstart]")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_installs_again_when_what_is_asked_for_changed(installing: Machine, name: str) -> None:
    done(installing)
    with open(installing.root / name, "a") as file:
        file.write("# changed\n")
    assert done(installing) == ["venv", "pip"]
    assert done(installing) == []


def test_interrupted_installation_is_taken_up(installing: Machine) -> None:
    (installing.home / "pip-status").write_text("1")
    assert done(installing) == ["venv", "pip"]
    (installing.home / "pip-status").write_text("0")
    assert done(installing) == ["venv", "pip"]
    assert done(installing) == []


def test_broken_environment_is_made_again(installing: Machine) -> None:
    done(installing)
    write_command(installing.root / ".venv/bin/python", "exit 127")
    assert done(installing) == ["venv", "pip"]
    assert "--clear" in (installing.home / "log").read_text()


def test_moved_project_is_installed_again(installing: Machine, tmp_path: Path) -> None:
    done(installing)
    installing.root = installing.root.rename(tmp_path / "moved")
    assert done(installing) == ["venv", "pip"]


def test_wrappers_pass_their_arguments_on(installing: Machine) -> None:
    python = installing.bin / "python3"
    python.write_text(
        python.read_text().replace(
            "case",
            f'case "$*" in "-m jaxlm"*|"-m pytest"*)\n'
            f'printf "%s|" "$@" >"{installing.home}/arguments"; exit 3;; esac\ncase',
            1,
        )
    )
    for script, arguments, expected in (
        ("quickstart", ["a=b c"], "-m|jaxlm|run|configs/quickstart.yaml|a=b c|"),
        ("test", ["-k", "x y"], "-m|pytest|-k|x y|"),
    ):
        result = subprocess.run(
            [installing.root / "launch" / f"{script}.sh", *arguments],
            env=installing.environment,
            cwd=installing.home,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 3, result.stderr
        assert (installing.home / "arguments").read_text() == expected


def test_two_at_a_time_wait_for_each_other(installing: Machine) -> None:
    if not shutil.which("flock"):
        pytest.skip("flock is not on this system, and the script does without it")
    done(installing)
    gate = installing.home / "gate"
    os.mkfifo(gate)
    held = subprocess.Popen(
        ["bash", "-c", 'exec 9<pyproject.toml; flock 9; echo held; read -r _ <"$1"', "-", gate],
        cwd=installing.root,
        stdout=subprocess.PIPE,
    )
    assert held.stdout is not None
    assert held.stdout.readline() == b"held\n"
    waiting = subprocess.Popen(
        ["bash", "-c", 'source "$1"/launch/environment.sh; make_environment test', "-",
         str(installing.root)],
        env=installing.environment,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("Another script is installing")
    assert waiting.poll() is None
    gate.write_text("go\n")
    assert waiting.wait(timeout=60) == 0
    assert held.wait(timeout=60) == 0
