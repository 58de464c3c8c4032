"""The JSON Schema of a config, and the configs that ship with the project."""

from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import json_schema, load
from jaxlm.config.explain import every_key

CONFIGS = Path(__file__).parents[2] / "configs"


def objects(node: Any) -> list[dict[str, Any]]:
    """Every mapping inside the schema."""
    if isinstance(node, list):
        return [found for item in node for found in objects(item)]
    if not isinstance(node, dict):
        return []
    return [node] + [found for item in node.values() for found in objects(item)]


def test_every_reference_leads_somewhere() -> None:
    schema = json_schema()
    references = [o["$ref"] for o in objects(schema) if isinstance(o.get("$ref"), str)]
    assert references
    assert {r.removeprefix("#/$defs/") for r in references} == set(schema["$defs"])


def test_every_section_is_closed_and_every_key_described() -> None:
    schema = json_schema()
    for section in objects(schema):
        if "properties" not in section:
            continue
        assert section["additionalProperties"] is False
        for name, key in section["properties"].items():
            assert {"description", "const", "$ref"} & set(key), name
    undescribed = [
        key for key, holder in every_key() if not holder.model_fields[str(key[-1])].description
    ]
    assert undescribed == []


def test_a_config_may_name_a_base_and_leave_out_the_optimizers_kind() -> None:
    schema = json_schema()
    assert schema["properties"]["base"]["type"] == ["string", "array"]
    assert len(schema["$defs"]["Optimizer"]["anyOf"]) == 3
    assert schema.get("required", []) == []


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.stem))
def test_configs_that_ship_are_right(path: Path) -> None:
    config = load(path)
    assert config.workdir.startswith("runs/")
    if path.parent.name not in ("clean", "mixtures"):  # those are for runs of any length
        assert config.steps > 0
