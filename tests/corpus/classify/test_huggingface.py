"""Small sequence classifiers of transformers, scored through the adapter and directly. Needs the
extra hf-classifier, and is left out without it."""

from pathlib import Path
from typing import Any

import pytest

from jaxlm.corpus.classify.huggingface import open_classifier
from jaxlm.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "river", "pills", "cheap", "wide", "the"]
TEXTS = ["the wide river", "cheap pills", "", "river " * 40, "wide unknown pills " * 9]


def make(folder: Path, **config: Any) -> str:
    """A random BERT of one layer with a vocabulary of nine words."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(
        vocab={word: i for i, word in enumerate(WORDS)}, model_max_length=64
    )
    torch.manual_seed(0)
    small = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, initializer_range=0.5, **config,
    )  # fmt: skip
    transformers.BertForSequenceClassification(small).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def logits(folder: str, text: str, size: int) -> Any:
    """Logits of each window of so many tokens, [windows, labels]."""
    model = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    ids = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
    windows = [ids[i : i + size - 2] for i in range(0, max(1, len(ids)), size - 2)]
    with torch.inference_mode():
        return torch.stack([model(torch.tensor([[2, *window, 3]])).logits[0] for window in windows])


@pytest.mark.parametrize(
    ("config", "label", "wanted"),
    [
        ({"num_labels": 1}, None, lambda x: x[:, 0]),
        ({"id2label": {0: "bad", 1: "good"}}, None, lambda x: x.softmax(-1)[:, 1]),
        ({"id2label": {0: "bad", 1: "good"}}, "bad", lambda x: x.softmax(-1)[:, 0]),
        (
            {"id2label": {0: "a", 1: "b", 2: "c"}, "problem_type": "multi_label_classification"},
            "b",
            lambda x: x.sigmoid()[:, 1],
        ),
    ],
)
@pytest.mark.parametrize("size", [512, 12])
def test_scores(tmp_path: Path, config: Any, label: str | None, wanted: Any, size: int) -> None:
    folder = make(tmp_path, **config)
    found = open_classifier("edu", folder, label, size, 3)(TEXTS)
    direct = [float(wanted(logits(folder, text, min(size, 64))).mean()) for text in TEXTS]
    assert found == pytest.approx(direct, abs=1e-5)
    assert max(found) - min(found) > 0.01


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path, id2label={0: "bad", 1: "good"})
    with pytest.raises(UserError, match="no label 'fine'; it has bad, good"):
        open_classifier("edu", folder, "fine", 512, 3)
    model = transformers.BertForSequenceClassification.from_pretrained(folder)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()  # pickled weights are not read
    with pytest.raises(UserError, match="cannot be loaded"):
        open_classifier("edu", folder, None, 512, 3)
    with pytest.raises(UserError, match="cannot be loaded"):
        open_classifier("edu", str(tmp_path / "nowhere"), None, 512, 3)
