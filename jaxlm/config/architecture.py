"""Keys of `model` that do not go together, found before anything runs."""

from jaxlm.config.kernels import Call, pattern_of, refusal
from jaxlm.config.position import (
    Alibi,
    DynamicNtkScaling,
    Llama3Scaling,
    LongRopeScaling,
    NtkScaling,
    RelativeBias,
    Rope,
    Sinusoidal,
    Xpos,
    YarnScaling,
    longest,
    rotated_width,
)
from jaxlm.config.schema import Config

type Problem = tuple[list[str], str]
"""The dotted keys that are involved, and what is wrong with them."""


def misfits(config: Config) -> list[Problem]:
    """Every pair of keys of the network that excludes itself, and lengths that it does not take."""
    return _shape(config) + _positions(config) + _windows(config) + _kernel(config)


def _shape(config: Config) -> list[Problem]:
    model = config.model
    found: list[Problem] = []
    if model.head_dim is None and model.d_model % model.heads:
        found.append((
            ["model.heads", "model.d_model"],
            f"model.d_model {model.d_model} is not a multiple of {model.heads} heads; "
            "choose another number or give model.head_dim",
        ))  # fmt: skip
    if model.heads % model.kv_head_count:
        found.append((
            ["model.kv_heads", "model.heads"],
            f"{model.heads} query heads cannot share {model.kv_head_count} key heads evenly",
        ))  # fmt: skip
    if model.norm_bias and model.norm == "rms":
        found.append((
            ["model.norm_bias", "model.norm"], "RMSNorm has no bias; use norm: layer"
        ))  # fmt: skip
    if model.residual != "sequential":
        if model.norm_placement != "pre":
            found.append((
                ["model.residual", "model.norm_placement"],
                f"{model.residual} needs norm_placement: pre, not {model.norm_placement}",
            ))  # fmt: skip
        if model.kind == "encoder_decoder":
            found.append((
                ["model.residual", "model.kind"],
                "an encoder_decoder attends twice a block, one after the other; use sequential",
            ))  # fmt: skip
    if model.decoder_layers is not None and model.kind != "encoder_decoder":
        found.append((
            ["model.decoder_layers", "model.kind"],
            f"only an encoder_decoder has two depths; a {model.kind} has model.layers",
        ))  # fmt: skip
    return found


def _positions(config: Config) -> list[Problem]:
    model, position = config.model, config.model.position
    found: list[Problem] = []
    reach = longest(position)
    if reach is not None and config.data.seq_len > reach:
        raised = "scale_base" if isinstance(position, Xpos) else "length"
        found.append((
            ["data.seq_len", f"model.position.{raised}", "model.position"],
            f"{config.data.seq_len} tokens are more than the {reach} positions that "
            f"model.position has ({position.kind}); shorten the sequence or raise its {raised}",
        ))  # fmt: skip
    match position:
        case Sinusoidal() if model.d_model % 2:
            found.append((
                ["model.d_model", "model.position"],
                f"sines and cosines go in pairs, and {model.d_model} is odd; choose an even width",
            ))  # fmt: skip
        case RelativeBias():
            found += _buckets(position, both_ways=model.kind in ("encoder", "encoder_decoder"))
        case Xpos() if model.kind != "decoder":
            found.append((
                ["model.position.kind", "model.kind"],
                f"xpos grows with distance for keys behind the query, which a {model.kind} sees; "
                "use rope, or kind: decoder",
            ))  # fmt: skip
        case Rope() if position.truncation and model.kind in ("encoder", "encoder_decoder"):
            found.append((
                ["model.position.truncation", "model.kind"],
                f"truncated distances are defined for decoders, not for an {model.kind}",
            ))  # fmt: skip
    if isinstance(position, Rope | Xpos):
        found += _rotation(position, model.head_width)
    return found


def _buckets(position: RelativeBias, *, both_ways: bool) -> list[Problem]:
    """Half of the buckets of a direction are single distances, the others reach further."""
    keys = ["model.position.buckets", "model.position.max_distance"]
    side = position.buckets // 2 if both_ways else position.buckets
    if both_ways and position.buckets % 2:
        return [(keys[:1], f"{position.buckets} do not halve into two directions; use an even one")]
    if position.max_distance <= side // 2:
        return [(
            keys[::-1],
            f"{position.max_distance} lies within the {side // 2} buckets of one distance each; "
            "raise it, or take fewer buckets",
        )]  # fmt: skip
    return []


def _rotation(position: Rope | Xpos, head_width: int) -> list[Problem]:
    """Frequencies that do not exist: 0 pairs, logarithms of 1, ramps without a length."""
    found: list[Problem] = []
    width = rotated_width(position, head_width)
    if head_width % 2 or not width:
        keys = ["model.head_dim", "model.heads", "model.position"]
        found.append((
            keys if head_width % 2 else ["model.position.fraction", *keys],
            f"rotary positions need an even number of each head, not {width} of {head_width}",
        ))  # fmt: skip
    if position.theta <= 1:
        found.append((
            ["model.position.theta"],
            f"wavelengths are its powers, and those of {position.theta:g} do not grow; raise it",
        ))  # fmt: skip
    if not isinstance(position, Rope):
        return found
    if position.truncation and position.truncation.log_length == 1:
        found.append((
            ["model.position.truncation.log_length"], "the logarithm of 1 is 0; give 2 or more"
        ))  # fmt: skip
    at, scaling = "model.position.scaling", position.scaling
    match scaling:
        case NtkScaling() | DynamicNtkScaling() if width <= 2:
            found.append((
                [at, "model.position.fraction", "model.head_dim"],
                f"{scaling.kind} changes the speed of all pairs but the first, and there is one",
            ))  # fmt: skip
        case YarnScaling() if scaling.beta_slow >= scaling.beta_fast:
            found.append((
                [f"{at}.beta_slow", f"{at}.beta_fast"],
                f"{scaling.beta_slow:g} is not below beta_fast, {scaling.beta_fast:g}",
            ))  # fmt: skip
        case Llama3Scaling() if scaling.low_freq_factor >= scaling.high_freq_factor:
            found.append((
                [f"{at}.low_freq_factor", f"{at}.high_freq_factor"],
                f"{scaling.low_freq_factor:g} is not below high_freq_factor, "
                f"{scaling.high_freq_factor:g}",
            ))  # fmt: skip
        case LongRopeScaling():
            for name in ("short_factors", "long_factors"):
                if (given := len(getattr(scaling, name))) != width // 2:
                    found.append((
                        [f"{at}.{name}"], f"{given} factors for {width // 2} pairs of a head"
                    ))  # fmt: skip
            if scaling.original_length == 1:
                found.append((
                    [f"{at}.original_length"], "the logarithm of 1 is 0; give the trained length"
                ))  # fmt: skip
    return found


def _windows(config: Config) -> list[Problem]:
    model, section, position = config.model, config.model.attention, config.model.position
    found: list[Problem] = []
    window, sinks = section.window, section.sinks
    if window is None:
        for name in ("sinks", "global_every"):
            if getattr(section, name) is not None:
                found.append((
                    [f"model.attention.{name}"],
                    "means nothing without a window; give model.attention.window",
                ))  # fmt: skip
        return found
    if window > config.data.seq_len:
        found.append((
            ["model.attention.window", "data.seq_len"],
            f"a window of {window} is longer than the sequence, data.seq_len "
            f"{config.data.seq_len}; shorten it, or leave it out for full attention",
        ))  # fmt: skip
    if model.kind in ("encoder", "encoder_decoder"):
        found.append((
            ["model.attention.window", "model.kind"],
            f"windows are for a decoder or prefix_decoder, not for an {model.kind}",
        ))  # fmt: skip
    if isinstance(position, Rope) and position.truncation is not None:
        found.append((
            ["model.position.truncation", "model.attention.window"],
            "a window hides the distant pairs that truncation is about; use one of the two",
        ))  # fmt: skip
    if (every := section.global_every) is not None and model.layers % every:
        found.append((
            ["model.attention.global_every", "model.layers"],
            f"{model.layers} layers are no multiple of {every}",
        ))  # fmt: skip
    if sinks is None:
        return found
    moves = sinks.distance == "slot" or (sinks.distance == "limit" and sinks.limit is not None)
    rotary = isinstance(position, Rope | Xpos)
    if sinks.distance == "slot" and not rotary:
        found.append((
            ["model.attention.sinks.distance", "model.position"],
            f"slot moves rotary positions, and these are {position.kind}; use true or limit",
        ))  # fmt: skip
    elif moves and not rotary and not isinstance(position, Alibi | RelativeBias):
        found.append((
            ["model.attention.sinks.limit", "model.position"],
            f"{position.kind} positions have no distance to limit; leave it out",
        ))  # fmt: skip
    if sinks.limit is not None and sinks.distance != "limit":
        found.append((
            ["model.attention.sinks.limit", "model.attention.sinks.distance"],
            f"distance: {sinks.distance} has no limit; leave it out or use distance: limit",
        ))  # fmt: skip
    return found


def _kernel(config: Config) -> list[Problem]:
    """What the kernel that is asked for cannot compute of any layer."""
    model, length = config.model, config.data.seq_len
    part = length // max(config.mesh.context, 1)  # of a row, whose queries a device has
    kernel = model.attention.kernel
    if kernel == "auto":
        return []
    orders = {"encoder": (False,), "encoder_decoder": (False, True)}.get(model.kind, (True,))
    calls = [
        Call(
            pattern_of(model, causal=causal, everything=everything),
            queries=part,
            keys=length,
            head_width=model.head_width,
            dtype={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[
                config.train.precision
            ],
            prefix=model.kind == "prefix_decoder",
            bias=isinstance(model.position, Alibi | RelativeBias),
            sink_logits=model.attention.sink_logits,
        )
        for causal in orders
        for everything in (False, True)
        if not everything or model.attention.global_every
    ]
    reasons = dict.fromkeys(reason for call in calls if (reason := refusal(kernel, call)))
    return [(["model.attention.kernel"], f"{kernel} {reason}") for reason in reasons]
