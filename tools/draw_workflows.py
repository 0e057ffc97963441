"""Makes workflows/NAME.json and its picture from workflows/api/NAME.json, in the real frontend.

`python tools/inside.py tools.draw_workflows [NAME ...]`. The nodes are laid out in columns from left to right, the workflow is
saved as the frontend saves it, run, and photographed with its pictures.
"""

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright import sync_api

from .load_pack import ROOT, host_path
from .server import Server, serving
from .workplace import CHROMIUM_FLAGS, find_chromium

GAP = 50
LAY_OUT = """gap => {
    const nodes = app.graph._nodes, column = new Map()
    const depth = node => {
        if (!column.has(node)) {
            column.set(node, 0)
            const before = node.inputs.filter(i => i.link != null).map(i => app.graph.getNodeById(app.graph.links[i.link].origin_id))
            column.set(node, Math.max(-1, ...before.map(depth)) + 1)
        }
        return column.get(node)
    }
    nodes.forEach(depth)
    const last = Math.max(...column.values())
    nodes.filter(n => !n.outputs.some(o => o.links?.length)).forEach(n => column.set(n, last))  // results side by side
    for (const node of nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name == 'control_after_generate') widget.value = 'fixed'  // so that runs can be compared
    let x = 0
    for (let c = 0; c <= last; c++) {
        const stack = nodes.filter(n => column.get(n) == c)
        let y = 0
        for (const node of stack) {
            const size = node.computeSize()
            const picture = ['SaveImage', 'SaveVideo', 'PreviewImage', 'FreeSteerPreviewCameraPath', 'PreviewGaussianSplat']
                .includes(node.type)
            const height = node.type == 'SaveVideo' ? 460 : picture ? 330 : Math.max(size[1], 60)  // with its video
            node.setSize([Math.max(size[0], picture ? 420 : 300), height])
            node.pos = [x, y]
            y += node.size[1] + gap
        }
        x += Math.max(...stack.map(n => n.size[0])) + gap
    }
}"""
LOADED = """() => app.graph._nodes.filter(n => ['SaveImage', 'PreviewImage'].includes(n.type))
    .every(n => n.imgs?.length && n.imgs.every(img => img.naturalWidth > 0))"""
FIT = """() => {
    const bounds = app.graph._nodes.reduce((b, n) => [Math.max(b[0], n.pos[0] + n.size[0]), Math.max(b[1], n.pos[1] + n.size[1])], [0, 0])
    const scale = Math.min(1440 / bounds[0], 800 / bounds[1])
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [(1660 / scale - bounds[0]) / 2, (940 / scale - bounds[1]) / 2 + 20 / scale]
    app.canvas.min_font_size_for_lod = 0  // texts at any scale
    app.canvas.draw(true, true)
}"""


def draw(page: Any, server: Server, source: Path) -> None:
    target = ROOT / "workflows" / source.name
    page.goto(server.url)
    page.wait_for_function("window.app?.graph")
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")  # the template browser opens by itself at first
    page.evaluate("([api, name]) => app.loadApiJson(api, name)", [json.loads(source.read_text(encoding="utf-8")), source.name])
    page.wait_for_timeout(1500)
    page.evaluate(LAY_OUT, GAP)
    target.write_text(json.dumps(page.evaluate("app.graph.serialize()"), indent=1) + "\n", encoding="utf-8")
    page.evaluate(FIT)  # the frontend loads the pictures of nodes that are in view
    if not any(loader in source.read_text(encoding="utf-8") for loader in ("CheckpointLoaderSimple", "LoadVideo")):  # files of the user
        page.locator("[data-testid=queue-button]").first.click()
        page.wait_for_function(LOADED, timeout=600_000)
        page.wait_for_timeout(20_000 if "PreviewGaussianSplat" in source.read_text(encoding="utf-8") else 1500)  # it sorts splats first
    page.evaluate("app.graph._nodes.forEach(node => { node.has_errors = false })")  # a file that is not on this machine
    page.evaluate(FIT)
    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(target.with_suffix(".jpg"), quality=88)


def main(names: list[str]) -> None:
    host, chromium = host_path(), find_chromium()
    assert host is not None and chromium is not None, "needs ComfyUI and chromium: run `python run.py test` once"
    sources = [s for s in sorted((ROOT / "workflows" / "api").glob("*.json")) if not names or s.stem in names]
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_api.sync_playwright() as playwright,
        serving(Path(sys.executable), host, Path(folder)) as server,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(60_000)
        for source in sources:
            draw(page, server, source)


if __name__ == "__main__":
    main(sys.argv[1:])
