"""Changes that a search tries."""

from jaxlm.planning.search import neighbours, too_large, with_changes
from tests.models.small import config_of

MESH = {"data": 4, "fsdp": 2, "stage": 1, "tensor": 1, "context": 1}


def test_a_config_that_does_not_fit_saves_memory_first() -> None:
    config = config_of(train={"remat": "none"}, mesh=MESH)
    tried = list(neighbours(config, MESH, fits=False))
    assert tried[:3] == [
        {"train.remat": "dots"},
        {"train.remat": "full"},
        {"train.microbatch_size": 4},
    ]
    assert tried[3] == {"mesh.data": 2, "mesh.fsdp": 4}
    assert {"mesh.fsdp": 1, "mesh.tensor": 2} in tried
    assert all(len(change) == 2 for change in tried[3:])


def test_a_microbatch_is_cut_by_as_much_as_is_missing() -> None:
    config = config_of(train={"remat": "full", "batch_size": 64}, mesh=MESH)
    record = {"hbm_bytes": 16, "argument_bytes": 4, "temp_bytes": 60}
    tried = list(neighbours(config, MESH, False, too_large(record)))
    assert [change["train.microbatch_size"] for change in tried[:3]] == [8, 4, 2]
    nothing = list(neighbours(config, MESH, False, too_large(record | {"argument_bytes": 20})))
    assert all("train.microbatch_size" not in change for change in nothing)


def test_one_that_fits_spends_memory_on_speed() -> None:
    config = config_of(train={"remat": "full", "microbatch_size": 4}, mesh=MESH)
    tried = list(neighbours(config, MESH, fits=True))
    assert tried[:3] == [
        {"train.remat": "none"},
        {"train.remat": "dots"},
        {"train.microbatch_size": 8},
    ]


def test_changes_are_checked_as_a_config_is() -> None:
    tokenizer = {"kind": "byte", "vocab_size": 258}
    config = config_of({"vocab_size": 512}, {"remat": "full"}, mesh=MESH, tokenizer=tokenizer)
    changed = with_changes(config, {"train.remat": "dots", "mesh.data": 2, "mesh.fsdp": 4})
    assert changed is not None
    assert (changed.train.remat, changed.mesh.data, changed.mesh.fsdp) == ("dots", 2, 4)
    assert with_changes(config, {"mesh.tensor": 3}) is None
    assert with_changes(config, {"train.microbatch_size": 3}) is None
