"""Combinations of keys that cannot work, found before anything runs."""

from jaxlm.config.schema import Config
from jaxlm.config.train import Mesh

type Problem = tuple[list[str], str]
"""The dotted keys that are involved, and what is wrong with them."""

DTYPE_IDS = {"uint16": 1 << 16, "uint32": 1 << 32}


def impossible(config: Config) -> list[Problem]:
    """Every impossible combination that shows without knowing the devices."""
    model, train, data, mesh = config.model, config.train, config.data, config.mesh
    schedule = config.optimizer.schedule
    found: list[Problem] = []

    def refuse_if(bad: bool, keys: list[str], message: str) -> None:
        if bad:
            found.append((keys, f"{keys[0]}: {message}"))

    names = [source.name for source in config.sources]
    for index, name in enumerate(names):
        refuse_if(
            name in names[:index],
            [f"sources.{index}.name"],
            f"two sources are named {name!r}; names must differ",
        )
    refuse_if(
        train.steps is not None and train.tokens is not None,
        ["train.steps", "train.tokens"],
        "give either train.steps or train.tokens",
    )
    refuse_if(
        model.head_dim is None and model.d_model % model.heads > 0,
        ["model.heads", "model.d_model"],
        f"model.d_model {model.d_model} is not a multiple of {model.heads} heads; "
        "choose another number or give model.head_dim",
    )
    refuse_if(
        model.heads % model.kv_head_count > 0,
        ["model.kv_heads", "model.heads"],
        f"{model.heads} query heads cannot share {model.kv_head_count} key heads evenly",
    )
    refuse_if(
        model.head_width % 2 > 0,
        ["model.head_dim", "model.heads"],
        f"rotary positions need an even head width, not {model.head_width}",
    )
    refuse_if(
        config.vocab_size < config.tokenizer.vocab_size,
        ["model.vocab_size"],
        f"{config.vocab_size} is smaller than tokenizer.vocab_size {config.tokenizer.vocab_size}",
    )
    if data.dtype != "auto":
        limit = DTYPE_IDS[data.dtype]
        refuse_if(
            config.tokenizer.vocab_size > limit,
            ["data.dtype", "tokenizer.vocab_size"],
            f"{data.dtype} holds ids below {limit}, the tokenizer has "
            f"{config.tokenizer.vocab_size}; choose uint32 or auto",
        )
    micro = train.microbatch_size or train.batch_size
    refuse_if(
        train.batch_size % micro > 0,
        ["train.microbatch_size"],
        f"train.batch_size {train.batch_size} is not a multiple of {micro}",
    )
    refuse_if(
        schedule.decay_steps is not None and schedule.warmup_steps > schedule.decay_steps,
        ["optimizer.schedule.warmup_steps", "optimizer.schedule.decay_steps"],
        f"the decay is over at step {schedule.decay_steps}, before {schedule.warmup_steps} steps "
        "of warm-up are",
    )
    refuse_if(
        (config.checkpoint.keep_every or 0) % config.checkpoint.every > 0,
        ["checkpoint.keep_every"],
        f"{config.checkpoint.keep_every} is not a multiple of checkpoint.every "
        f"{config.checkpoint.every}, the steps that write one",
    )
    refuse_if(
        config.eval.every is not None and data.validation_fraction == 0,
        ["eval.every", "data.validation_fraction"],
        "nothing is held apart to evaluate on; set data.validation_fraction above 0",
    )
    refuse_if(mesh.stage != 1, ["mesh.stage"], "pipeline stages are not built yet; use 1")
    refuse_if(mesh.context != 1, ["mesh.context"], "context shards are not built yet; use 1")
    sizes = {axis: getattr(mesh, axis) for axis in Mesh.model_fields}
    refuse_if(list(sizes.values()).count(-1) > 1, ["mesh.data"], "at most one mesh axis may be -1")
    for axis, size in sizes.items():
        refuse_if(size == 0, [f"mesh.{axis}"], "an axis has at least one device (or -1: the rest)")
    return found + indivisible(config, sizes)


def indivisible(config: Config, sizes: dict[str, int]) -> list[Problem]:
    """Sizes that do not divide by the mesh axes they are split over; axes of -1 are passed over."""
    model, train = config.model, config.train
    data, fsdp, tensor = (max(sizes[axis], 1) for axis in ("data", "fsdp", "tensor"))
    micro = train.microbatch_size or train.batch_size
    splits = [
        ("train.microbatch_size" if train.microbatch_size else "train.batch_size", micro,
         "mesh.data x mesh.fsdp", data * fsdp),
        ("eval.batch_size", config.eval.batch_size or 0, "mesh.data x mesh.fsdp", data * fsdp),
        ("model.heads", model.heads, "mesh.tensor", tensor),
        ("model.kv_heads", model.kv_head_count, "mesh.tensor", tensor),
        ("model.d_mlp", model.d_mlp, "mesh.tensor", tensor),
        ("model.vocab_size" if model.vocab_size else "tokenizer.vocab_size",
         config.vocab_size, "mesh.tensor", tensor),
        ("model.ngram_embedding.buckets",
         model.ngram_embedding.buckets if model.ngram_embedding else 0, "mesh.tensor", tensor),
        ("model.d_model", model.d_model, "mesh.fsdp", fsdp),
    ]  # fmt: skip
    return [
        ([key], f"{key}: {size} is not a multiple of {axis} = {parts}")
        for key, size, axis, parts in splits
        if size % parts
    ]
