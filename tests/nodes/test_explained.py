"""Every node tells what it does: tooltips, help pages and both languages, all in step with the schemas."""

import json
from typing import Any

import pytest
from freesteer.tools.load_pack import ROOT
from freesteer.tools.write_help import spoken, tables

from .conftest import CLASSES

LANGUAGES = ("en", "zh")


def locale(language: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def texts(tree: Any) -> list[str]:
    return [tree] if isinstance(tree, str) else [text for item in tree.values() for text in texts(item)]


def shape(tree: Any) -> Any:
    return None if isinstance(tree, str) else {key: shape(item) for key, item in tree.items()}


@pytest.mark.parametrize("node_id", CLASSES)
def test_it_is_explained_and_found(node_id):
    schema = CLASSES[node_id].GET_SCHEMA()
    assert node_id.startswith("FreeSteer")
    assert schema.category.startswith("FreeSteer")
    assert schema.display_name and schema.description.endswith(".")
    for each in (*schema.inputs, *schema.outputs):
        assert each.tooltip and each.tooltip.endswith("."), f"{node_id} {each.id}"
    if schema.inputs:
        assert schema.search_aliases


@pytest.mark.parametrize("node_id", CLASSES)
def test_english_is_that_of_the_schema(node_id):
    assert locale("en")[node_id] == spoken(CLASSES[node_id].GET_SCHEMA())


@pytest.mark.parametrize("node_id", CLASSES)
def test_chinese_has_every_text_in_chinese(node_id):
    entry = locale("zh")[node_id]
    assert shape(entry) == shape(locale("en")[node_id])
    explained = [entry["description"], *(each["tooltip"] for part in ("inputs", "outputs") for each in entry.get(part, {}).values())]
    for text in explained:
        assert any("\u4e00" <= letter <= "\u9fff" for letter in text), text


def test_no_text_is_left_of_nodes_that_are_gone():
    for language in LANGUAGES:
        assert set(locale(language)) == set(CLASSES)


@pytest.mark.parametrize("node_id", CLASSES)
def test_there_is_a_help_page_in_both_languages(node_id):
    docs = ROOT / "web" / "docs"
    english = (docs / f"{node_id}.md").read_text(encoding="utf-8")
    chinese = (docs / node_id / "zh.md").read_text(encoding="utf-8")
    schema = CLASSES[node_id].GET_SCHEMA()
    assert english.startswith(f"# {schema.display_name}\n")
    for page, language in ((english, "en"), (chinese, "zh")):
        assert page.endswith(tables(locale(language)[node_id], language)), "run `python tools/inside.py tools.write_help`"
