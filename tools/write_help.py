"""Brings the English locale file and the tables of the help pages in step with the nodes: `python tools/inside.py tools.write_help`.

Chinese texts are written by hand in locales/zh; what is missing there is named. The words above the tables stay as they are.
"""

import importlib
import json
from typing import Any

from .load_pack import ROOT

HEADINGS = {
    "en": ("## Inputs", "| Input | What it does to the picture |", "## Outputs", "| Output | What it is |"),
    "zh": ("## 输入", "| 输入 | 对画面的作用 |", "## 输出", "| 输出 | 内容 |"),
}


def spoken(schema: Any) -> dict[str, Any]:
    """A node as its English locale file has it."""
    entry: dict[str, Any] = {"display_name": schema.display_name, "description": schema.description}
    if schema.inputs:
        entry["inputs"] = {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs}
    if schema.outputs:
        entry["outputs"] = {str(n): {"name": o.display_name or o.io_type, "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)}
    return entry


def tables(entry: dict[str, Any], language: str) -> str:
    inputs, input_head, outputs, output_head = HEADINGS[language]
    name = "`{id}`" if language == "en" else "{name}（`{id}`）"  # noqa: RUF001
    text = ""
    if "inputs" in entry:
        rows = [f"| {name.format(id=key, name=each['name'])} | {each['tooltip']} |" for key, each in entry["inputs"].items()]
        text += "\n".join([inputs, "", input_head, "|---|---|", *rows]) + "\n\n"
    if "outputs" in entry:
        rows = [f"| {each['name']} | {each['tooltip']} |" for each in entry["outputs"].values()]
        text += "\n".join([outputs, "", output_head, "|---|---|", *rows]) + "\n"
    return text


def main() -> None:
    schemas = [node.GET_SCHEMA() for node in importlib.import_module("freesteer.nodes").NODES]
    english = ROOT / "locales" / "en" / "nodeDefs.json"
    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    entries = {schema.node_id: spoken(schema) for schema in schemas}
    english.write_text(json.dumps(entries, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for node_id, entry in entries.items():
        known = chinese.get(node_id, {})
        missing = [key for part in ("inputs", "outputs") for key in entry.get(part, {}) if key not in known.get(part, {})]
        if missing:
            print(f"{node_id} has no Chinese for {', '.join(missing)}")
        for language, path in (("en", f"{node_id}.md"), ("zh", f"{node_id}/zh.md")):
            page = ROOT / "web" / "docs" / path
            above = page.read_text(encoding="utf-8").split("## 输入" if language == "zh" else "## Inputs")[0]
            above = above.split("## 输出" if language == "zh" else "## Outputs")[0]
            page.write_text(above + tables({"en": entries, "zh": chinese}[language][node_id], language), encoding="utf-8")


if __name__ == "__main__":
    main()
