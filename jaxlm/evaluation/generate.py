"""Text from a trained model: a batch of prompts, in one go."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.model import Model
from jaxlm.config.position import DynamicNtkScaling, LongRopeScaling, Rope, longest
from jaxlm.errors import UserError
from jaxlm.evaluation.decoding import Job, Rows
from jaxlm.evaluation.decoding import decode as decode_rows
from jaxlm.evaluation.sampling import Request
from jaxlm.evaluation.trained import Trained
from jaxlm.models import Transformer
from jaxlm.models.positions import frequencies
from jaxlm.parallel import shards, spec, without_stages
from jaxlm.tokens import Tokenizer, decode_named, encode_named
from jaxlm.training.loss import DTYPES

type Ids = Sequence[int]


def generate(
    trained: Trained, prompts: Sequence[str], request: Request, contexts: Sequence[str] = ()
) -> list[str]:
    """The continuation of each prompt, up to the end of the document or request.max_tokens.

    The prompts are decoded together; each draws from a key of its own (request.seed and its index),
    so that it does not depend on the others. A decoder continues a prompt; a prefix_decoder sees
    the whole of it; an encoder_decoder's encoder reads it, with EOS behind.

    contexts: texts that each prompt sees and that do not see each other (parallel context windows).
    Raises UserError for a request that makes no sense, or more than the model's positions hold.
    """
    tokenizer, model = trained.tokenizer, trained.config.model
    ends = [tokenizer.eos_id] if model.kind == "encoder_decoder" else []
    begins = [] if contexts else [tokenizer.bos_id]
    encode, decode = codec(tokenizer, request)
    ids = [[*begins, *encode(prompt), *ends] for prompt in prompts]
    windows = [[tokenizer.bos_id, *encode(context)] for context in contexts]
    if found := request.problems() + refusals(model, ids, request, windows):
        raise UserError(found)
    with jax.set_mesh(trained.mesh):
        found_ids = continued(
            model, trained.params, ids, request, windows,
            bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
            dtype=DTYPES[trained.config.train.precision],
        )  # fmt: skip
    return [decode(new) for new in found_ids]


def codec(
    tokenizer: Tokenizer, request: Request
) -> tuple[Callable[[str], list[int]], Callable[[Ids], str]]:
    """How prompts become ids, and ids text."""
    if request.special_tokens:
        return partial(encode_named, tokenizer), partial(decode_named, tokenizer)
    return tokenizer.encode, tokenizer.decode


def refusals(
    model: Model, prompts: Sequence[Ids], request: Request, contexts: Sequence[Ids] = ()
) -> list[str]:
    """Why a model cannot continue these prompts, and what it could do."""
    if model.kind == "encoder":
        return [
            "an encoder (model.kind) predicts hidden tokens from both sides and cannot continue "
            "text; a decoder, prefix_decoder or encoder_decoder can"
        ]
    found = []
    if contexts:
        if model.kind == "encoder_decoder":
            found.append(
                "--context: an encoder_decoder reads its input in one piece; put the text into "
                "--prompt, or use a decoder or prefix_decoder"
            )
        if model.attention.window is not None:
            limits = [
                f"model.attention.{name}=null"
                for name in ("window", "sinks", "global_every")
                if getattr(model.attention, name) is not None
            ]
            found.append(
                "--context: with model.attention.window the texts would be out of sight; add "
                + " ".join(limits)
            )
        found += [
            "--prompt: empty; with --context there must be a text to continue"
            for prompt in prompts if not prompt
        ]  # fmt: skip
    reach = longest(model.position)
    if reach is None or not prompts:
        return found
    before = max(map(len, contexts), default=0)
    read, new = max(map(len, prompts)), request.max_tokens
    has = f"model.position has {reach} places ({model.position.kind})"
    if model.kind == "encoder_decoder":
        if read > reach:
            found.append(f"--prompt: {read} tokens, {has}; shorten it to {reach}")
        before, read = 0, 1
    if before + read + new > reach:
        what = f"{read} of --prompt"
        if before:
            what = f"{before} of the longest --context and {what}"
        most = reach - before - read
        advice = f"give at most --max-tokens {most}" if most > 0 else "shorten the texts"
        found.append(f"--max-tokens: {new} tokens behind {what}, but {has}; {advice}")
    return found


def continued(
    model: Model,
    params: Transformer,
    prompts: Sequence[Ids],
    request: Request,
    contexts: Sequence[Ids] = (),
    *,
    bos_id: int,
    eos_id: int,
    dtype: jnp.dtype,
) -> list[list[int]]:
    """Ids that follow each prompt, up to the end of the document, which is left out.

    Works on the mesh that is set. No prompt is empty. The kernel that the config names is that of
    training; caches are read by one alone.
    """
    attention = model.attention.model_copy(update={"kernel": "auto"})
    model = model.model_copy(update={"attention": attention})
    params = without_stages(params)
    key = jax.random.key(request.seed)
    mesh = jax.sharding.get_mesh()
    parts = shards("batch")
    rows = jax.NamedSharding(mesh, spec("batch"))
    reach, new = longest(model.position), request.max_tokens
    first = max(map(len, contexts), default=0)
    both = model.kind == "encoder_decoder"

    def on_mesh(ids: Sequence[Ids], width: int) -> Rows:
        tokens_BP = np.full((len(ids), width), eos_id, np.int32)
        for row, its in enumerate(ids):
            tokens_BP[row, : len(its)] = its
        lengths_B = np.array([len(its) for its in ids], np.int32)
        return Rows(*jax.device_put((tokens_BP, lengths_B), rows))

    windows = None
    if contexts:
        missing = -len(contexts) % parts
        windows = on_mesh([[]] * missing + list(contexts), first)
    found: dict[int, list[int]] = {}
    for group in _groups(model, [(0 if both else first + new) + len(ids) for ids in prompts]):
        row_numbers = [*group, *group[:1] * (-len(group) % parts)]
        lengths = [len(prompts[row]) for row in row_numbers]
        # few different shapes, so that few are compiled
        width = _rounded(max(lengths), 32)
        if reach is not None:
            width = min(width, reach - first)
        length, input_length = first + width + new, width
        if by_length(model):
            length, input_length = first + max(lengths) + new, max(lengths)
        job = Job(
            model, dtype, request._replace(seed=0, special_tokens=False), bos_id, eos_id,
            1 + new if both else length, input_length,
        )  # fmt: skip
        keys_B = jax.vmap(partial(jax.random.fold_in, key))(np.array(row_numbers))
        keys_B = jax.device_put(keys_B, rows)
        batch = on_mesh([prompts[row] for row in row_numbers], width)
        new_BN = np.asarray(decode_rows(job, params, batch, keys_B, windows))
        for row, new_N in zip(group, new_BN.tolist(), strict=False):
            found[row] = new_N[: new_N.index(eos_id)] if eos_id in new_N else new_N
    return [found[row] for row in range(len(prompts))]


def by_length(model: Model) -> bool:
    """Whether positions depend on the length of the row."""
    position = model.position
    return isinstance(position, Rope) and isinstance(
        position.scaling, DynamicNtkScaling | LongRopeScaling
    )


def _groups(model: Model, lengths: Sequence[int]) -> list[list[int]]:
    """Rows whose positions are encoded alike, so that none depends on those that it is with."""
    groups: dict[bytes, list[int]] = {}
    for row, length in enumerate(lengths):
        alike = b""
        if by_length(model):
            assert isinstance(model.position, Rope)
            alike = frequencies(model.position, model.head_width, length).inverse_F.tobytes()
        groups.setdefault(alike, []).append(row)
    return list(groups.values())


def _rounded(value: int, step: int) -> int:
    return -(-value // step) * step
