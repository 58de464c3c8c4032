"""A tokenizer for a corpus: SentencePiece or WordPiece on a sample of it, or one from a file."""

import io
import re

import sentencepiece

from jaxlm.config import Config
from jaxlm.config.objective import FIM, components
from jaxlm.config.tokenizer_file import TokenizerFile, read_file
from jaxlm.config.tokens import Tokenizer as TokenizerConfig
from jaxlm.errors import UserError
from jaxlm.objectives.fim import check_cuts
from jaxlm.tokens.huggingface import library, train_wordpiece
from jaxlm.tokens.pool import Pool, cores
from jaxlm.tokens.sample import PIECE_CHARACTERS, draw_sample
from jaxlm.tokens.special import Special
from jaxlm.tokens.tokenizer import ByteTokenizer, Tokenizer, lost, open_tokenizer, save_tokenizer
from jaxlm.workdir import Progress, Workdir, no_progress

# SentencePiece drops a sentence that is longer than it is told to expect, or that holds its mark
# for the unknown, and takes its mark for the space as one; a piece must be none of these.
LONGEST_SENTENCE = 4 * PIECE_CHARACTERS
RESERVED = str.maketrans({"\u2581": " ", "\u2585": " "})
# SentencePiece writes the number into the model, and its sums depend on it, so it must not depend
# on the machine.
TRAINER_THREADS = 8


def train_tokenizer(config: Config, workdir: Workdir, progress: Progress = no_progress) -> None:
    """WORKDIR/corpus -> WORKDIR/tokenizer: as config.tokenizer says, trained or taken over.

    Special tokens that the objectives need are ids that no text becomes. Raises UserError for a
    corpus or model file that cannot be used, and a vocabulary that the corpus does not support.
    """
    options = config.tokenizer
    with workdir.replace_dir("tokenizer") as directory:
        if options.kind == "byte":
            byte = ByteTokenizer(config.specials, options.user_symbols)
            save_tokenizer(directory, byte, b"", user_symbols=options.user_symbols)
        elif options.path is not None:
            tokenizer, file, special = taken_over(config, options.path)
            save_tokenizer(directory, tokenizer, file.content, special)
        else:
            check_tokenizer(config)
            with Pool(config.prepare.workers or cores(), nothing) as pool:
                sample = draw_sample(config, workdir, pool, progress)
                pieces = [piece.text for part in sample.values() for piece in part]
                # In a process of its own Ctrl-C ends it at once, and its memory comes back.
                (model,) = pool.map(train_in_worker, [(options, pieces, config.specials)])
            save_tokenizer(
                directory,
                open_tokenizer(model, "the new tokenizer"),
                model,
                user_symbols=options.user_symbols,
                sample_bytes={
                    name: sum(len(piece.text.encode()) for piece in part)
                    for name, part in sample.items()
                },
                # pieces with smaller numbers were trained on (jaxlm/tokens/sample.py)
                drawn_below={
                    name: part[-1].number + 1 if part else 0 for name, part in sample.items()
                },
            )


def check_tokenizer(config: Config) -> None:
    """Raise UserError where a file or a library that the tokenizer needs cannot be used."""
    options = config.tokenizer
    if options.path is not None:
        taken_over(config, options.path)
    elif "wordpiece" in (options.kind, *(each.kind for each in options.candidates().values())):
        library()


def nothing() -> None:
    """Workers of a tokenizer need no preparation."""


def taken_over(config: Config, path: str) -> tuple[Tokenizer, TokenizerFile, Special]:
    """The tokenizer of tokenizer.path, its file, and what it was opened with.

    Special tokens that the file lacks get ids behind its own. Raises UserError where it cannot be
    used: another size than the config says, or texts whose parts it cannot tokenize by themselves,
    where fim cuts between characters.
    """
    options, file = config.tokenizer, read_file(path)
    lacking = file.lacks(config.specials)
    tokenizer = open_tokenizer(file.content, path, Special(options.bos, options.eos, lacking))
    special = Special(options.bos, options.eos, tokenizer.added)
    if options.vocab_size not in (None, tokenizer.vocab_size):
        has = f"has {file.size} ids"
        if tokenizer.added:
            has += (
                f" and lacks {', '.join(tokenizer.added[:8])}"
                f"{' and others' if len(tokenizer.added) > 8 else ''}, which come behind them"
            )
        raise UserError(
            f"{path} {has}, the config says {options.vocab_size}; set tokenizer.vocab_size="
            f"{tokenizer.vocab_size}, or leave it out (null)"
        )
    if text := [name for name in tokenizer.added if len(tokenizer.encode(name)) == 1]:
        raise UserError(
            f"{path}: {', '.join(text)}: text that is one token of the file cannot be a special "
            "token, which text never becomes; choose another name"
        )
    for objective in (config.objective, *(stage.objective for stage in config.data.curriculum)):
        for component in components(objective or config.objective):
            if isinstance(component, FIM):
                check_cuts(component, tokenizer)
    return tokenizer, file, special


def notes(tokenizer: Tokenizer) -> list[str]:
    """What a user should know of a tokenizer, a line each."""
    found = []
    if (back := lost(tokenizer)) is not None:
        found.append(
            f"this tokenizer does not keep text as it is: {back}; what it loses is lost to the "
            "model, and bits per byte count the bytes that are left"
        )
    if tokenizer.added:
        found.append(
            f"{len(tokenizer.added)} special tokens get ids behind those of the file: "
            f"{', '.join(tokenizer.added[:8])}{', ...' if len(tokenizer.added) > 8 else ''}"
        )
    return found


def train_in_worker(job: tuple[TokenizerConfig, list[str], tuple[str, ...]]) -> bytes:
    """train_model, of one argument."""
    return train_model(*job)


def train_model(
    options: TokenizerConfig, pieces: list[str], specials: tuple[str, ...] = ()
) -> bytes:
    """A tokenizer.model or tokenizer.json of one of the kinds that are trained.

    specials: ids that text never becomes. Raises UserError where vocab_size is more or less than
    the text supports.
    """
    if options.kind == "wordpiece":
        return _wordpiece(options, pieces, specials)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(piece.translate(RESERVED) for piece in pieces),
            model_writer=model,
            model_type=options.kind,
            vocab_size=options.vocab_size,
            character_coverage=options.character_coverage,
            max_sentencepiece_length=options.max_piece_length,
            max_sentence_length=LONGEST_SENTENCE,
            byte_fallback=True,
            control_symbols=list(specials),
            user_defined_symbols=list(options.user_symbols),
            normalization_rule_name=options.normalization,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=options.split_digits,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=TRAINER_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _in_plain_words(error, options, pieces) from None
    return model.getvalue()


def _wordpiece(options: TokenizerConfig, pieces: list[str], specials: tuple[str, ...]) -> bytes:
    assert options.vocab_size is not None
    if not any(piece.strip() for piece in pieces):
        raise _no_text()
    model, size = train_wordpiece(
        pieces,
        vocab_size=options.vocab_size,
        specials=specials,
        user_symbols=options.user_symbols,
        max_piece_length=options.max_piece_length,
        split_digits=options.split_digits,
        nfkc=options.normalization == "nfkc",
    )
    if size < options.vocab_size:
        raise _too_many(options.vocab_size, size)
    if size > options.vocab_size:
        raise UserError(
            f"tokenizer.vocab_size={options.vocab_size} has no room for the bytes, twice each; set "
            f"it to {size} or more"
        )
    return model


def _in_plain_words(
    error: RuntimeError, options: TokenizerConfig, pieces: list[str]
) -> UserError | RuntimeError:
    assert options.vocab_size is not None
    if not any(piece.strip() for piece in pieces):
        return _no_text()
    if found := re.search(r"too high .*<= (\d+)", str(error)):
        return _too_many(options.vocab_size, int(found[1]))
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(error)):
        return UserError(
            f"tokenizer.vocab_size={options.vocab_size} has no room for the bytes and the frequent "
            f"characters; set it to {found[1]} or more, or lower tokenizer.character_coverage"
        )
    return error


def _no_text() -> UserError:
    return UserError("the sample for the tokenizer holds no text; raise tokenizer.sample_bytes")


def _too_many(wanted: int, largest: int) -> UserError:
    return UserError(
        f"tokenizer.vocab_size={wanted} is more than the text supports; the largest possible size "
        f"is {largest}: set tokenizer.vocab_size={largest} or less, or bring more text"
    )
