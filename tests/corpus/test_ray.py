"""The Ray executor on a real cluster of two nodes gives what local processes give."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxlm.config.corpus import Prepare
from jaxlm.corpus import prepare
from jaxlm.corpus.executor import executor
from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, no_progress
from tests.corpus.test_resume import config, contents, raw, whole

__all__ = ["raw", "whole"]  # fixtures

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = nodes.address
    yield nodes.address
    nodes.shutdown()
    if before is None:
        del os.environ["RAY_ADDRESS"]


def where() -> str:
    import time

    time.sleep(0.5)  # long enough that one node cannot take all
    return str(ray.get_runtime_context().get_node_id())


def fail() -> None:
    raise UserError(["one", "two"])


def test_tasks_run_on_both_nodes_and_errors_come_back_whole(cluster: str) -> None:
    with executor(Prepare(executor="ray")) as (pool, workers):
        assert workers == 2
        futures = [pool.submit(where) for _ in range(6)]
        assert len({future.result() for future in futures}) == 2
        with pytest.raises(UserError) as failure:
            pool.submit(fail).result()
        assert failure.value.messages == ["one", "two"]


def test_the_same_bytes_as_local_processes(
    cluster: str, raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    prepare(config(tmp_path, raw, executor="ray"), Workdir(tmp_path), no_progress)
    assert contents(tmp_path) == whole
