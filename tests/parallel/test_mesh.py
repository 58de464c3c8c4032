"""Where the devices of slices and nodes lie in a mesh."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from jaxlm.errors import UserError
from jaxlm.parallel.mesh import across, slice_of

SIZES = dict.fromkeys(("data", "fsdp", "stage", "tensor", "context"), 1)


def gpus(nodes: int, joined: int, same_index: bool) -> Any:
    """As a compiler counts GPUs that are not there (same_index), or as running processes do."""
    return [
        SimpleNamespace(
            id=node * joined + place,
            platform="gpu",
            slice_index=0 if same_index else node,
            coords=[node, 0, place] if same_index else None,
        )
        for node in range(nodes)
        for place in range(joined)
    ]


@pytest.mark.parametrize("same_index", [True, False])
def test_nodes_are_told_apart(same_index: bool) -> None:
    nodes = [slice_of(device) for device in gpus(3, 4, same_index)]
    assert [nodes.index(node) for node in nodes] == [0] * 4 + [4] * 4 + [8] * 4


def test_the_axes_that_send_least_go_over_the_slow_network() -> None:
    wanted = {"data": 2, "fsdp": 8, "stage": 2, "tensor": 4}
    assert across(SIZES | wanted, 4) == SIZES | {"data": 2, "stage": 2}
    assert across(SIZES | wanted, 8) == SIZES | {"data": 2, "stage": 2, "fsdp": 2}
    with pytest.raises(UserError, match="cannot be laid over 3 slices"):
        across(SIZES | wanted, 3)


EVERY_SHAPE = """
from jaxlm.parallel import make_mesh
from jaxlm.planning import devices_of, parse_hardware
from tests.models.small import config_of
devices = devices_of(parse_hardware("{name}"))
for shape in {shapes}:
    mesh = dict(zip(("data", "fsdp", "tensor"), shape))
    model = {{"d_model": 1024, "heads": 64, "kv_heads": 64, "d_mlp": 1024}}
    config = config_of(model, {{"batch_size": 1024}}, mesh=mesh)
    found = make_mesh(config, devices).devices.flat
    assert len({{device.id for device in found}}) == len(devices), mesh
"""


@pytest.mark.parametrize(
    "name", ["tpu:v5p:4x4x4", "tpu:v5e:4x8", "tpu:7x:2x2x2", "tpu:v5p:2x2x1:2"]
)
def test_every_mesh_that_multiplies_lies_on_a_torus(name: str) -> None:
    pytest.importorskip("libtpu", reason="pip install 'jaxlm[planning]'")
    count = {"tpu:v5p:4x4x4": 64, "tpu:v5e:4x8": 32, "tpu:7x:2x2x2": 16, "tpu:v5p:2x2x1:2": 8}[name]
    twos = [2**n for n in range(7)]
    shapes = [
        (data, count // data // tensor, tensor)
        for data in twos
        for tensor in twos
        if count % (data * tensor) == 0 and (tensor < count or ":2" not in name[-2:])
    ]
    assert math.prod(shapes[0]) == count
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    code = EVERY_SHAPE.format(name=name, shapes=shapes)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


EACH_NODE = """
from jaxlm.parallel import make_mesh
from jaxlm.planning import devices_of, parse_hardware
from tests.models.small import config_of
config = config_of(mesh={"data": 4, "fsdp": 4, "tensor": 2}, train={"batch_size": 16})
found = make_mesh(config, devices_of(parse_hardware("gpu:h100:8:4"))).devices
assert [{device.coords[0] for device in copy.flat} for copy in found] == [{0}, {1}, {2}, {3}]
"""


def test_each_copy_of_the_model_stays_within_its_node() -> None:
    for package in ("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"):
        pytest.importorskip(package, reason="pip install 'jaxlm[planning]'")
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", EACH_NODE], check=True, env=environment)
