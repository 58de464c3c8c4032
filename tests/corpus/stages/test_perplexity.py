"""The stage: thresholds and buckets, and a checkpoint of ours as the model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxlm.config.classifiers import Perplexity
from jaxlm.config.corpus import Source
from jaxlm.corpus.classify.ngram import fit
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.stages import EDITORS, FILES, decide
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UserError
from jaxlm.evaluation import open_trained, text_nats
from jaxlm.workdir import no_progress
from tests.training.conftest import prepared, trained  # noqa: F401
from tests.training.runs import config_of

GOOD = ["the cat sat on the mat", "the dog sat on the mat", "the cat and the dog sat"]


def analysis(*texts: str) -> Analysis:
    return Analysis(Documents.of(Source(name="s", path="x"), (t.encode() for t in texts)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    fit(Strings.of(text.encode() for text in GOOD), 3, 1, no_progress).save(folder, {})
    return str(folder)


def test_thresholds_and_buckets(model: str) -> None:
    texts = ("the cat sat on the mat", "mat cat the on", "zebra", "")
    rules = Perplexity(
        model=model, max_perplexity=6.0, max_bucket=0, head_below=2.0, tail_above=6.0
    )
    edit = EDITORS["quality.perplexity"](analysis(*texts), rules)
    values = edit.tags["perplexity"]
    assert values[0] < 6 < values[1]
    assert np.isnan(values[3])
    wanted = (values > 2.0).astype(float) + (values > 6.0)
    np.testing.assert_array_equal(edit.tags["bucket"][:3], wanted[:3])
    assert np.isnan(edit.tags["bucket"][3])
    failed = {failure.rule: failure.failed.tolist() for failure in decide(rules, edit.tags)}
    assert failed["max_perplexity"] == [False, True, bool(values[2] > 6), False]
    assert len(edit.changes) == 0
    assert edit.texts[0] == texts[0].encode()


def test_what_is_missing_is_told(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"max_bucket.*set head_below and tail_above"):
        EDITORS["quality.perplexity"](analysis("a"), Perplexity(model=model, max_bucket=1))
    with pytest.raises(UserError, match=r"no model; set its key model, or train one"):
        FILES["quality.perplexity"](Perplexity())
    with pytest.raises(UserError, match="holds no n-gram model and no checkpoints"):
        FILES["quality.perplexity"](Perplexity(model=str(tmp_path)))
    with pytest.raises(UserError, match="no n-gram model there"):
        EDITORS["quality.perplexity"](analysis("a"), Perplexity(model=str(tmp_path)))


def test_a_checkpoint_of_ours_scores_as_the_evaluation_does(
    trained: Path,  # noqa: F811
) -> None:
    path = str(config_of(trained).workdir)
    texts = ("abc", "", "a text that is a good deal longer than one window of the model " * 3)
    edit = EDITORS["quality.perplexity"](analysis(*texts), Perplexity(model=path))
    found = open_trained(path)  # eight devices, the stage used one
    nats, number = text_nats(found, texts)
    assert number.tolist() == [len(found.tokenizer.encode(text)) + 1 for text in texts]
    np.testing.assert_allclose(edit.tags["perplexity"], np.exp(nats / number), rtol=1e-4)
    assert np.isnan(edit.tags["bucket"]).all()
    assert all(path.is_file() for path in FILES["quality.perplexity"](Perplexity(model=path)))


def test_an_ngram_model_needs_no_jax(model: str) -> None:
    code = f"""
import json, sys
from jaxlm.config.classifiers import Perplexity
from jaxlm.config.corpus import Source
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import EDITORS
from jaxlm.corpus.statistics import Analysis
texts = Analysis(Documents.of(Source(name="s", path="x"), [b"the cat"]))
EDITORS["quality.perplexity"](texts, Perplexity(model={model!r}))
print(json.dumps("jax" in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) is False
