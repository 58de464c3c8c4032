"""Combinations of keys that cannot work, found before anything runs."""

import math
from collections.abc import Callable

from jaxlm.config.architecture import Problem, misfits
from jaxlm.config.data import Stage
from jaxlm.config.lengths import layout
from jaxlm.config.mixture_checks import mixtures
from jaxlm.config.objective import components
from jaxlm.config.objective_checks import unfit, unlike
from jaxlm.config.position import Learned, Position, RelativeBias, longest
from jaxlm.config.schema import Config
from jaxlm.config.stages import stages
from jaxlm.config.train import AXES

BF16_STEP = 2.0**-8
DTYPE_IDS = {"uint16": 1 << 16, "uint32": 1 << 32}


def impossible(config: Config) -> list[Problem]:
    """Every impossible combination that shows without knowing the devices."""
    train = config.train
    found = _repeated([source.name for source in config.sources], "sources", "sources")
    found += mixtures(config)
    found += _split(config)
    if config.data.curriculum:
        found += _curriculum(config)
        if unlimited := _lengths(config):
            return found + unlimited  # the stages cannot be told apart
        found += [(keys, f"{keys[0]}: {message}") for keys, message in unlike(config)]
        found += _ramp(config)
    elif train.steps is not None and train.tokens is not None:
        keys = ["train.steps", "train.tokens"]
        found.append((keys, "train.steps: give either train.steps or train.tokens"))
    return found + _in_stages(config, _impossible)


def indivisible(config: Config, sizes: dict[str, int]) -> list[Problem]:
    """Sizes that do not divide by the mesh axes they are split over; axes of -1 are passed over."""
    return _in_stages(config, lambda stage: _indivisible(stage, sizes))


def _repeated(names: list[str], section: str, what: str) -> list[Problem]:
    return [
        ([key := f"{section}.{i}.name"], f"{key}: two {what} are named {name!r}; names must differ")
        for i, name in enumerate(names)
        if name in names[:i]
    ]


def _split(config: Config) -> list[Problem]:
    """What is wrong with data.split_by."""
    found: list[Problem] = []
    names = [source.name for source in config.sources]
    parted: set[tuple[str, str]] = set()
    for index, split in enumerate(config.data.split_by):
        at = f"data.split_by.{index}"
        found += [
            (
                [f"{at}.sources"],
                f"{at}.sources: no source is named {name!r}; there are {', '.join(names)}",
            )
            for name in split.sources
            if names and name not in names
        ]
        pairs = {(name, split.field) for name in split.sources or names}
        if again := sorted(pairs & parted):
            found.append((
                [f"{at}.field"],
                f"{at}.field: source {again[0][0]!r} is parted by {split.field} twice; "
                "leave one out",
            ))  # fmt: skip
        parted |= pairs
    return found


def _curriculum(config: Config) -> list[Problem]:
    """What is wrong with the list of stages as such."""
    found = _repeated([s.name for s in config.data.curriculum], "data.curriculum", "stages")
    shared = any(stage.share is not None for stage in config.data.curriculum)
    for key in ("steps",) if shared else ("steps", "tokens"):
        if getattr(config.train, key) is not None:
            found.append((
                [f"train.{key}", "data.curriculum"],
                f"train.{key}: data.curriculum says how long the run is; leave this out (or null)",
            ))  # fmt: skip
    for index, stage in enumerate(config.data.curriculum):
        at = f"data.curriculum.{index}"
        if stage.position and _parameters(stage.position) != _parameters(config.model.position):
            found.append((
                [f"{at}.position", "model.position"],
                f"{at}.position: stage {stage.name!r} would need other parameters than "
                f"model.position ({config.model.position.kind}); choose one with the same",
            ))  # fmt: skip
    return found


def _lengths(config: Config) -> list[Problem]:
    """What is wrong with stages that have shares of train.tokens."""
    curriculum, tokens = config.data.curriculum, config.train.tokens
    if all(stage.share is None for stage in curriculum):
        return []
    others = [i for i, stage in enumerate(curriculum) if stage.share is None]
    if others:
        key = f"data.curriculum.{others[0]}"
        message = f"stage {curriculum[others[0]].name!r} has no share and others have one; give all"
        return [([key], f"{key}: {message} a share, or none")]
    if tokens is None:
        message = "train.tokens: stages have shares of it; say how many tokens the run has"
        return [(["train.tokens", "data.curriculum"], message)]
    reached = {span.stage for span in config.spans}
    return [
        (
            [f"data.curriculum.{i}.share", "train.tokens"],
            f"data.curriculum.{i}.share: of {tokens:,} tokens no step is left for stage "
            f"{stage.name!r}; raise train.tokens, or lower batch_size",
        )
        for i, stage in enumerate(curriculum)
        if i not in reached
    ]


def _ramp(config: Config) -> list[Problem]:
    """Batches of a ramp that are no whole microbatches of their stage."""
    found: list[Problem] = []
    for index, stage in enumerate(stages(config)):
        micro, full = stage.config.train.microbatch_size, stage.config.train.batch_size
        sizes = [span.batch_size for span in stage.spans if span.batch_size < full]
        if micro is not None and (uneven := [size for size in sizes if size % micro]):
            key = f"data.curriculum.{index}.microbatch_size"
            message = f"the ramp has batches of {uneven[0]} here, not a multiple of {micro}; give"
            divisor = math.gcd(full, *sizes)
            found.append(([key, "train.batch_ramp"], f"{key}: {message} {divisor} or a divisor"))
    return found


def _parameters(position: Position) -> tuple[str, int] | None:
    """What a position encoding learns."""
    match position:
        case Learned():
            return position.kind, position.length
        case RelativeBias():
            return position.kind, position.buckets
    return None


OVERRIDDEN = {
    "data.seq_len": "seq_len", "train.batch_size": "batch_size",
    "train.microbatch_size": "microbatch_size", "objective": "objective",
    "model.position": "position", "optimizer.learning_rate": "learning_rate",
    "optimizer.schedule": "schedule",
}  # fmt: skip
"""Keys of a config, and the key of a stage that takes the place of each."""


def _in_stages(config: Config, check: Callable[[Config], list[Problem]]) -> list[Problem]:
    """Problems of every stage; what is wrong in all of them is told once."""
    curriculum = config.data.curriculum
    if not curriculum:
        return check(config)
    problems = [check(stage.config) for stage in stages(config)]
    found = [p for p in problems[0] if len(problems) > 1 and all(p in other for other in problems)]
    for index, stage in enumerate(curriculum):
        found += [
            (_own_keys(stage, index, keys) + keys, f"stage {stage.name!r}: {message}")
            for keys, message in problems[index]
            if (keys, message) not in found
        ]
    return found


def _own_keys(stage: Stage, index: int, keys: list[str]) -> list[str]:
    """Where the stage itself says what these keys are."""
    return [
        f"data.curriculum.{index}.{name}{key[len(place) :]}"
        for key in keys
        for place, name in OVERRIDDEN.items()
        if f"{key}.".startswith(f"{place}.") and getattr(stage, name) is not None
    ]


def _impossible(config: Config) -> list[Problem]:
    """The same for one stage."""
    train, data, mesh = config.train, config.data, config.mesh
    schedule = config.optimizer.schedule
    found: list[Problem] = []

    def refuse_if(bad: bool, keys: list[str], message: str) -> None:
        if bad:
            found.append((keys, f"{keys[0]}: {message}"))

    ids = config.tokenizer_size or 0  # unknown: told when the file is there
    refuse_if(
        config.vocab_size < ids,
        ["model.vocab_size"],
        f"{config.vocab_size} is smaller than tokenizer.vocab_size {ids}",
    )
    if data.dtype != "auto":
        limit = DTYPE_IDS[data.dtype]
        refuse_if(
            ids > limit,
            ["data.dtype", "tokenizer.vocab_size"],
            f"{data.dtype} holds ids below {limit}, the tokenizer has {ids}; choose uint32 or auto",
        )
    micro = train.microbatch_size or train.batch_size
    refuse_if(
        train.batch_size % micro > 0,
        ["train.microbatch_size"],
        f"train.batch_size {train.batch_size} is not a multiple of {micro}",
    )
    refuse_if(
        schedule.warmup_share is None
        and schedule.warmup_tokens is None
        and schedule.decay_steps is not None
        and schedule.warmup_steps > schedule.decay_steps,
        ["optimizer.schedule.warmup_steps", "optimizer.schedule.decay_steps"],
        f"the decay is over at step {schedule.decay_steps}, before {schedule.warmup_steps} steps "
        "of warm-up are",
    )
    refuse_if(
        (schedule.warmup_tokens or 0) > (schedule.decay_tokens or math.inf),
        ["optimizer.schedule.warmup_tokens", "optimizer.schedule.decay_tokens"],
        f"the decay is over after {schedule.decay_tokens} tokens, before {schedule.warmup_tokens} "
        "tokens of warm-up are",
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
    found += _samples(config)
    for name in ("b1", "b2", "momentum"):
        decay = getattr(config.optimizer, name, 0.0)
        refuse_if(
            config.optimizer.state_dtype == "bf16" and decay > 1 - BF16_STEP,
            [f"optimizer.{name}", "optimizer.state_dtype"],
            f"{decay} changes the state by less than bf16 tells apart, 1 in 256; use at most "
            f"{1 - BF16_STEP:.3f}, or optimizer.state_dtype=fp32",
        )
    sizes = {axis: getattr(mesh, axis) for axis in AXES}
    refuse_if(list(sizes.values()).count(-1) > 1, ["mesh.data"], "at most one mesh axis may be -1")
    for axis, size in sizes.items():
        refuse_if(size == 0, [f"mesh.{axis}"], "an axis has at least one device (or -1: the rest)")
    found += [(keys, f"{keys[0]}: {message}") for keys, message in misfits(config) + unfit(config)]
    return found + _indivisible(config, sizes)


def _samples(config: Config) -> list[Problem]:
    """Texts at the end of a run that its model cannot make, which would show after training."""
    wanted, reach = config.eval.generate, longest(config.model.position)
    found: list[Problem] = []
    if wanted.prompts and config.model.kind == "encoder":
        found.append((
            ["eval.generate.prompts", "model.kind"],
            "eval.generate.prompts: an encoder cannot continue text; leave them out",
        ))  # fmt: skip
    if wanted.prompts and reach is not None and wanted.max_tokens >= reach:
        found.append((
            ["eval.generate.max_tokens", "model.position"],
            f"eval.generate.max_tokens: {wanted.max_tokens} and a prompt are more than the {reach} "
            f"places that model.position has ({config.model.position.kind})",
        ))  # fmt: skip
    return found


def _indivisible(config: Config, sizes: dict[str, int]) -> list[Problem]:
    model, train = config.model, config.train
    data, fsdp, stage, tensor, context = (max(sizes[axis], 1) for axis in AXES)
    micro = train.microbatch_size or train.batch_size
    splits = [
        ("train.microbatch_size" if train.microbatch_size else "train.batch_size", micro,
         "mesh.data x mesh.fsdp", data * fsdp),
        ("eval.batch_size", config.eval.batch_size or 0, "mesh.data x mesh.fsdp", data * fsdp),
        ("model.heads", model.heads, "mesh.tensor", tensor),
        ("model.kv_heads", model.kv_head_count, "mesh.tensor", tensor),
        ("model.d_mlp", model.d_mlp, "mesh.tensor", tensor),
        ("model.vocab_size" if model.vocab_size else "tokenizer.vocab_size",
         config.vocab_size, "mesh.stage x mesh.tensor", stage * tensor),
        ("model.ngram_embedding.buckets",
         model.ngram_embedding.buckets if model.ngram_embedding else 0,
         "mesh.stage x mesh.tensor", stage * tensor),
        ("model.d_model", model.d_model, "mesh.fsdp x mesh.context", fsdp * context),
    ]  # fmt: skip
    found = [
        ([key], f"{key}: {size} is not a multiple of {axis} = {parts}")
        for key, size, axis, parts in splits
        if size % parts
    ]
    return found + _uncut(config, context) + _unstaged(config, stage, data * fsdp)


def _unstaged(config: Config, stages: int, rows: int) -> list[Problem]:
    """What a pipeline of so many stages cannot run. rows: what microbatches are a multiple of."""
    model, mesh, train = config.model, config.mesh, config.train
    found: list[Problem] = []

    def refuse_if(bad: bool, keys: list[str], message: str) -> None:
        if bad:
            found.append((keys, f"{keys[0]}: {message}"))

    refuse_if(
        (mesh.schedule == "interleaved") != (mesh.interleave > 1),
        ["mesh.interleave", "mesh.schedule"],
        f"{mesh.interleave} with mesh.schedule {mesh.schedule}; interleaved goes with 2 parts a "
        "stage or more, the others with 1",
    )
    if stages == 1:
        return found
    refuse_if(
        mesh.schedule == "1f1b" and model.kind == "encoder_decoder",
        ["mesh.schedule", "model.kind"],
        "1f1b is for models of one stack; choose gpipe or interleaved",
    )
    refuse_if(
        train.batch_ramp is not None and mesh.schedule != "1f1b",
        ["train.batch_ramp", "mesh.schedule"],
        f"{mesh.schedule} takes the same number of microbatches each step; choose 1f1b, or leave "
        "the ramp out",
    )
    first = "train.batch_ramp.start" if train.batch_ramp else "train.batch_size"
    smallest = train.batch_ramp.start if train.batch_ramp else train.batch_size
    count = min(smallest, train.batch_size) // (train.microbatch_size or train.batch_size)
    fitting = [
        size
        for size in range(rows, smallest // stages + 1, rows)
        if math.gcd(train.batch_size, smallest) % size == 0
    ]
    refuse_if(
        count < stages,
        ["train.microbatch_size", "mesh.stage"],
        f"{stages} stages need as many microbatches a step, not {count}; "
        + (
            f"give {fitting[-1]} or less"
            if fitting
            else f"make {first} a multiple of {stages * rows}, stages x data x fsdp"
        ),
    )
    period = (model.attention.window and model.attention.global_every) or 1
    parts = stages * mesh.interleave
    stacks = {"layers": model.layers}
    if model.kind == "encoder_decoder":
        stacks["decoder_layers"] = model.decoder_layers or model.layers
    for name, layers in stacks.items():
        refuse_if(
            layers % (parts * period) > 0,
            [f"model.{name}", "mesh.stage"],
            f"{layers} is not a multiple of mesh.stage x mesh.interleave"
            + (" x model.attention.global_every" if period > 1 else "")
            + f" = {parts * period}",
        )
    return found


def _uncut(config: Config, context: int) -> list[Problem]:
    """Rows that do not make two chunks for each device of the context axis."""
    if context == 1:
        return []
    found: list[Problem] = []
    if config.model.ngram_embedding is not None:
        found.append((
            ["mesh.context", "model.ngram_embedding"],
            "mesh.context: n-grams reach over the ends of the parts that rows are cut into; use 1, "
            "or model.ngram_embedding: null",
        ))  # fmt: skip
    kind, seq_len = config.model.kind, config.data.seq_len
    lengths = {max(layout(each, kind, seq_len).target_len for each in components(config.objective))}
    if kind == "encoder_decoder":
        lengths.add(seq_len)
    return found + [
        (
            ["data.seq_len", "mesh.context"],
            f"data.seq_len: {seq_len} makes rows of {length} tokens, not a multiple of "
            f"2 x mesh.context = {2 * context}",
        )
        for length in sorted(lengths)
        if length % (2 * context)
    ]
