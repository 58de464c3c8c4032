"""A source's path becomes a sorted list of files, or a message."""

from pathlib import Path

import pytest

from jaxlm.config.corpus import Source
from jaxlm.corpus.listing import braces, files
from jaxlm.errors import UserError


def names(path: str | Path, **keys: str) -> list[str]:
    return [f.name for f in files(Source.model_validate({"name": "s", "path": str(path), **keys}))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/d.jsonl.zst", "sub/deep/e.py", "odd.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def test_globs_are_sorted_and_named_below_their_root(tree: Path) -> None:
    assert names(tree / "*.txt") == ["a.txt", "b.txt"]
    assert names(tree / "**/*.txt") == ["a.txt", "b.txt", "sub/c.txt"]
    assert names(tree / "sub/deep/e.py") == ["e.py"]
    assert names(tree / "{b,a}.txt") == ["a.txt", "b.txt"]
    assert braces("x{1,2}{a,b}") == ["x1a", "x1b", "x2a", "x2b"]


def test_formats_go_by_name_or_by_config(tree: Path) -> None:
    source = Source(name="s", path=f"{tree}/sub/**/*.*")
    assert [f.format for f in files(source)] == ["text", "jsonl", "text"]
    assert names(tree / "odd.bin", format="text") == ["odd.bin"]
    with pytest.raises(UserError, match=r"odd.bin does not tell its format; set format to text"):
        names(tree / "odd.bin")


def test_size_and_stamp_show_a_change(tree: Path) -> None:
    source = Source(name="s", path=f"{tree}/a.txt")
    before = files(source)
    (tree / "a.txt").write_text("xy")
    assert (before[0].size, files(source)[0].size) == (1, 2)
    assert before != files(source)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{tree}/none.txt", "no such file"),
        ("{tree}/*.none", "no file matches"),
        ("{tree}/sub", r"is a folder; name its files with a glob"),
        ("package:no-such-package-here/*", "'no-such-package-here' is not installed; pip install"),
        ("package:pip/*.nothing", "no file matches"),
        ("python:nothing", "python:topics, python:stdlib and python:descriptions"),
        ("nonsense://x/y.txt", "cannot open nonsense://"),
    ],
)
def test_what_is_not_there_is_told(tree: Path, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        names(path.replace("{tree}", str(tree)))


def test_text_that_every_python_has() -> None:
    assert names("python:topics") == ["topics"]
    modules = names("python:stdlib")
    assert "json/decoder.py" in modules
    assert modules == sorted(modules)
    assert not [name for name in modules if "site-packages" in name or "/test/" in name]
    assert any(name.startswith("numpy-") for name in names("python:descriptions"))


def test_files_of_an_installed_distribution() -> None:
    found = files(Source(name="s", path="package:numpy/numpy/__init__.py"))
    assert [f.name for f in found] == ["numpy/__init__.py"]
    assert Path(found[0].path).is_file()


def test_a_file_name_that_is_not_utf8_makes_an_id(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.txt").write_text("x")
    assert names(tmp_path / "*.txt") == ["caf\\xe9.txt"]
