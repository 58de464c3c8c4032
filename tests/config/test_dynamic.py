"""Dynamic mixtures that cannot work with the sources are refused before any text is read."""

from typing import Any

import pytest

from jaxlm.config.load import validate
from jaxlm.errors import UsageError


def refused(method: Any, data: Any = (), mixture: Any = (), **keys: Any) -> list[str]:
    """What is said of a dynamic mixture of web (3) and code (1); maths has weight 0."""
    section = {"method": method} | keys
    config = {
        "sources": [
            {"name": "web", "path": "web.txt", "weight": 3.0},
            {"name": "code", "path": "code.txt"},
            {"name": "maths", "path": "maths.txt", "weight": 0.0},
        ],
        "data": {"mixture": {"dynamic": section} | dict(mixture)} | dict(data),
        "train": {"steps": 1},
    }
    try:
        validate(config)
    except UsageError as error:
        return error.messages
    return []


ADO = {"kind": "ado"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": ADO, "minimum": 0.3}, "dynamic.minimum: the mixture gives code 0.2500 to"),
        ({"method": ADO, "maximum": 0.3}, "dynamic.maximum: 0.3 of each of 2 sources is less"),
        ({"method": ADO, "data": {"validation_fraction": 0.0}}, "dynamic: nothing is held apart"),
        ({"method": ADO, "mixture": {"max_epochs": 2.0}}, "leave one out"),
        (
            {"method": {"kind": "doremi", "reference": {"web": 2.0}}},
            "dynamic.method.reference: no loss of code",
        ),
        (
            {"method": {"kind": "skill", "graph": {"maths": {"web": 1.0}}}},
            "dynamic.method.graph: no source of the mixture is named maths; there are web, code",
        ),
        (
            {"method": {"kind": "skill", "graph": {"web": {"wiki": 1.0}}}},
            "dynamic.method.graph: no source is named wiki; there are code, maths, web",
        ),
        ({"method": {"kind": "adu"}}, "data.mixture.dynamic.method.kind: 'adu' is not one of ado"),
        ({"method": ADO | {"eta": 1.0}}, "data.mixture.dynamic.method.eta: unknown key"),
        ({"method": ADO, "minimum": 0.00002}, "dynamic.minimum: 2e-05 is not a multiple of 0.0001"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_the_config(keys: dict[str, Any], message: str) -> None:
    [found] = refused(**keys)
    assert message in found
    assert found.startswith("data.mixture")


def test_what_may_work_is_left_to_the_run() -> None:
    assert refused(ADO) == []
    # a source that is not trained on can be helped by others
    assert refused({"kind": "skill", "graph": {"web": {"maths": 1.0}}}) == []
    # shares that depend on the text
    assert refused(ADO, mixture={"smoothing": {"kind": "temperature", "temperature": 2.0}},
                   minimum=0.3) == []  # fmt: skip
    assert refused(ADO, data={"split_by": [{"field": "language"}]}, minimum=0.3) == []
