"""Sequence classifiers of the transformers library as judges of text."""

from collections.abc import Callable
from typing import Any

from jaxlm.errors import UserError


def missing_extra(name: str) -> str:
    """What to say where the libraries are not there."""
    return (
        f"classifier {name}: transformers and torch are not installed: "
        "pip install 'jaxlm[hf-classifier]'"
    )


def open_classifier(
    name: str, model: str, label: str | None, max_tokens: int, batch_size: int
) -> Callable[[list[str]], list[float]]:
    """Load a model; the result gives one score a text. Weights are read from safetensors alone.

    The score is the probability of `label`; null: the output of a model with one (not a
    probability), the probability of the last label of another. A text of more than max_tokens is
    scored in windows, and their mean counts. Raises UserError without the extra, for a model that
    cannot be loaded, and for a label that it does not have.
    """
    try:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError:
        raise UserError(missing_extra(name)) from None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model, use_fast=True)
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            model, use_safetensors=True
        ).eval()
    except Exception as error:  # of many libraries; whatever it is, this model cannot be used
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"classifier {name}: {model} cannot be loaded: {reason}") from None
    if not tokenizer.is_fast or tokenizer.pad_token is None:
        raise UserError(
            f"classifier {name}: {model} has no fast tokenizer with a padding token; save one with "
            "the model"
        )
    labels = {text: number for number, text in network.config.id2label.items()}
    if label is not None and label not in labels:
        raise UserError(
            f"classifier {name}: {model} has no label {label!r}; it has {', '.join(labels)}"
        )
    column = labels[label] if label is not None else len(labels) - 1
    longest = min(max_tokens, tokenizer.model_max_length)

    def score(texts: list[str]) -> list[float]:
        if not texts:
            return []
        windows = tokenizer(
            texts, truncation=True, max_length=longest, return_overflowing_tokens=True
        )
        owner = windows.pop("overflow_to_sample_mapping")
        total, number = [0.0] * len(texts), [0] * len(texts)
        for start in range(0, len(owner), batch_size):
            piece = {key: value[start : start + batch_size] for key, value in windows.items()}
            with torch.inference_mode():
                logits = network(**tokenizer.pad(piece, return_tensors="pt")).logits.float()
            if len(labels) == 1:
                scores = logits[:, 0]
            elif network.config.problem_type == "multi_label_classification":
                scores = logits.sigmoid()[:, column]
            else:
                scores = logits.softmax(-1)[:, column]
            for text, value in zip(owner[start : start + batch_size], scores.tolist(), strict=True):
                total[text] += value
                number[text] += 1
        return [value / max(count, 1) for value, count in zip(total, number, strict=True)]

    return score
