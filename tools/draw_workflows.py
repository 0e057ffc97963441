"""Makes workflows/NAME.json and its picture from workflows/api/NAME.json, in the real frontend.

`python tools/inside.py tools.draw_workflows [NAME ...]`. workflow_layouts.py says where each node stands. The frontend itself saves
the file; the picture shows it as the template browser opens it, run once where it can run here.
"""

import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright import sync_api

from .load_pack import ROOT, host_path
from .server import Server, serving
from .workflow_layouts import LAYOUTS, Layout
from .workplace import CHROMIUM_FLAGS, find_chromium

WINDOW: sync_api.ViewportSize = {"width": 1600, "height": 1000}
USERS_FILES = ("CheckpointLoaderSimple", "LoadVideo")  # nodes that load what only their user has
CLIP = {"kind": "orbit", "frames": 24, "width": 320, "height": 240, "as_estimated": False, "seed": 0}
TITLE, MARGIN, GROUP_TITLE = 30, 12, 34  # heights of a node's and a group's title, and what a group leaves around its nodes

# Sizes are as wide as asked for and no smaller than the frontend needs; runs can be compared, so seeds stay.
PLACE = """places => {
    for (const node of app.graph._nodes) {
        const [x, y, width, height] = places[node.id], least = node.computeSize()
        node.pos = [x, y]
        node.setSize([Math.max(width, least[0]), Math.max(height, least[1])])
        for (const widget of node.widgets ?? [])
            if (widget.name == 'control_after_generate') widget.value = 'fixed'
    }
    return app.graph.serialize()
}"""
SHOWN = """() => app.graph._nodes.every(node => {
    const shows = {SaveImage: node.imgs, PreviewImage: node.imgs, FreeSteerPreviewCameraPath: node.imgs, FreeSteerOverlap: node.imgs}
    if (node.type == 'SaveVideo') return node.videoContainer?.querySelector('video')?.readyState >= 2
    return !(node.type in shows) || (shows[node.type]?.length && shows[node.type].every(img => img.naturalWidth > 0))
})"""


def open_page(page: Any, url: str) -> None:
    """At first the template browser opens by itself."""
    page.goto(url)
    page.wait_for_function("window.app?.graph")
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")


def open_template(page: Any, server: Server, name: str) -> None:
    """As a click in the template browser does."""
    page.goto(f"{server.url}/?template={name}&source=FreeSteer")
    wait_for_template(page, name)


def wait_for_template(page: Any, name: str) -> None:
    page.wait_for_function("name => window.app?.extensionManager?.workflow?.activeWorkflow?.filename?.startsWith(name)", arg=name)
    page.wait_for_selector("[data-testid=queue-button]")
    page.wait_for_timeout(2000)  # what is amiss is told a little later


def laid_out(graph: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """A graph as the frontend saves it, with the groups, ways and the note of a layout."""
    nodes = {str(node["id"]): node for node in graph["nodes"]}
    for name in layout.collapsed:
        nodes[name]["flags"] = {"collapsed": True}
    graph["groups"] = [
        group(number, title, [nodes[name] for name in names]) for number, (title, names) in enumerate(layout.groups.items(), 1)
    ]
    note = {
        "id": max(map(int, nodes)) + 1, "type": "MarkdownNote", "title": "What to try next", "pos": list(layout.note.place[:2]),
        "size": list(layout.note.place[2:]), "flags": {}, "order": 0, "mode": 0, "inputs": [], "outputs": [], "properties": {},
        "widgets_values": [f"## {layout.note.text}"], "color": "#432", "bgcolor": "#653",
    }  # fmt: skip
    graph["nodes"].append(note)
    graph["last_node_id"] = note["id"]
    graph["extra"] = {**graph.get("extra", {}), **reroutes(graph, nodes, layout)}
    return graph


def group(number: int, title: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    left, top = (min(node["pos"][axis] for node in nodes) for axis in (0, 1))
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    bottom = max(node["pos"][1] + (0 if node["flags"].get("collapsed") else node["size"][1]) for node in nodes)
    top -= TITLE + GROUP_TITLE
    bounding = [left - MARGIN, top, right - left + 2 * MARGIN, bottom - top + MARGIN]
    return {"id": number, "title": title, "bounding": bounding, "color": "#3f789e", "font_size": 22, "flags": {}}


def reroutes(graph: dict[str, Any], nodes: dict[str, dict[str, Any]], layout: Layout) -> dict[str, Any]:
    """The dots that links pass on their ways. Links of one output that begin with the same dots share them."""
    links = {}
    for number, origin, slot, target, entry, _ in graph["links"]:
        links[f"{target}.{nodes[str(target)]['inputs'][entry]['name']}"] = (number, (origin, slot))
    dots: dict[Any, dict[str, Any]] = {}
    ends = []
    for name, points in layout.ways.items():
        number, source = links[name]
        for count in range(1, len(points) + 1):
            dot = dots.setdefault((source, points[:count]), {"id": len(dots) + 1, "pos": list(points[count - 1]), "linkIds": []})
            if count > 1:
                dot["parentId"] = dots[source, points[: count - 1]]["id"]
            dot["linkIds"].append(number)
        ends.append({"id": number, "parentId": dots[source, points]["id"]})
    return {"reroutes": list(dots.values()), "linkExtensions": ends}


def save(page: Any, source: Path, layout: Layout) -> None:
    """Lays an API workflow out, and lets the frontend save it."""
    page.evaluate("([api, name]) => app.loadApiJson(api, name)", [json.loads(source.read_text(encoding="utf-8")), source.stem])
    page.wait_for_timeout(1500)
    graph = page.evaluate(PLACE, {name: [*place, 0][:4] for name, place in layout.places.items()})
    page.evaluate("graph => app.loadGraphData(graph)", laid_out(graph, layout))
    page.wait_for_timeout(1500)
    saved = page.evaluate("app.graph.serialize()")
    (ROOT / "workflows" / source.name).write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


def photograph(page: Any, server: Server, source: Path) -> None:
    """The template as it opens, with its results where all that it loads is here."""
    open_template(page, server, source.stem)
    text = source.read_text(encoding="utf-8")
    if not any(loader in text for loader in USERS_FILES):
        page.locator("[data-testid=queue-button]").first.click()
        page.wait_for_function(SHOWN, timeout=1_800_000)
        page.wait_for_timeout(20_000 if "PreviewGaussianSplat" in text else 8000)  # the viewer sorts splats first; messages go
        for _ in range(5):
            page.evaluate("app.canvas.draw(true, true)")  # nodes grow with their videos, and are drawn so one time later
            page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save((ROOT / "workflows" / source.name).with_suffix(".jpg"), quality=88)


def stand_in(folder: Path) -> list[str]:
    """Empty files under the names of the models that templates ask for, so that these open without complaint. The server's words."""
    for kind, name in (("checkpoints", "v1-5-pruned-emaonly-fp16"), ("geometry_estimation", "depth_anything_3")):
        (folder / kind).mkdir()
        (folder / kind / f"{name}.safetensors").touch()
    paths = folder / "paths.yaml"
    kinds = {"base_path": str(folder), "checkpoints": "checkpoints", "geometry_estimation": "geometry_estimation"}
    paths.write_text(json.dumps({"stand_ins": kinds}), encoding="utf-8")
    return ["--extra-model-paths-config", str(paths)]


def give_clip(server: Server, folder: Path) -> None:
    """A drawn clip in the place of the user's."""
    clip = {
        "1": {"class_type": "FreeSteerPlaygroundClip", "inputs": CLIP},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 12.0}},
        "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "clip", "format": "auto", "codec": "auto"}},
    }
    server.run(clip)
    shutil.copy(folder / "output" / "clip_00001_.mp4", folder / "input" / "clip.mp4")


def main(names: list[str]) -> None:
    host, chromium = host_path(), find_chromium()
    assert host is not None and chromium is not None, "needs ComfyUI and chromium: run `python run.py test` once"
    sources = [s for s in sorted((ROOT / "workflows" / "api").glob("*.json")) if not names or s.stem in names]
    with (
        tempfile.TemporaryDirectory() as temporary,
        sync_api.sync_playwright() as playwright,
        serving(Path(sys.executable), host, Path(temporary), more=stand_in(Path(temporary))) as server,
    ):
        if any("LoadVideo" in source.read_text(encoding="utf-8") for source in sources):
            give_clip(server, Path(temporary))
        shutil.copy(host / "input" / "example.png", Path(temporary) / "input")
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(60_000)
        for source in sources:
            open_page(page, server.url)
            save(page, source, LAYOUTS[source.stem])
            photograph(page, server, source)


if __name__ == "__main__":
    main(sys.argv[1:])
