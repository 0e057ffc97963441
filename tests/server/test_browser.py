"""The pack in the host's real frontend: its workflows open from the template browser, run, and show their pictures."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from freesteer.tools.load_pack import ROOT
from freesteer.tools.server import Server
from freesteer.tools.workplace import CHROMIUM_FLAGS, find_chromium
from numpy.typing import NDArray
from PIL import Image

from .conftest import load, needs_files, skip_without_splats

playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright: use `python run.py test`")
from freesteer.tools.draw_workflows import WINDOW, open_page, open_template, wait_for_template  # noqa: E402  (it needs playwright as well)

TROUBLE = "[data-testid=error-overlay], .p-toast-message-error, .p-dialog, [role=alertdialog]"
UNKNOWN_NODES = """app.graph._nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))
    .map(node => node.type)
    .filter(type => !['CheckpointLoaderSimple', 'LoadImage', 'LoadVideo', 'LoadDA3Model'].includes(type))"""  # files of the user
LEAST_ZOOM = 0.75  # below, titles are hard to read
# Nodes on the screen that are not whole in view: a corner is outside, or under a panel of the frontend.
HIDDEN_NODES = """() => {
    const seen = (x, y) => {
        const element = document.elementFromPoint(x, y)
        return element && (element == app.canvas.canvas || element.closest('.dom-widget, .comfy-img-preview'))
    }
    const {scale, offset} = app.canvas.ds, page = app.canvas.canvas.getBoundingClientRect()
    return app.graph._nodes.filter(node => {
        const [left, top, width, height] = node.boundingRect
        const xs = [left + 4, left + width - 4].map(x => (x + offset[0]) * scale + page.x)
        const ys = [top + 4, top + height - 4].map(y => (y + offset[1]) * scale + page.y)
        return !xs.every(x => ys.every(y => seen(x, y)))
    }).map(node => node.title)
}"""
CUT_TITLES = """() => {
    const pen = document.createElement('canvas').getContext('2d')
    return app.graph._nodes.filter(node => {
        pen.font = node.titleFontStyle
        return !node.flags.collapsed && pen.measureText(node.title).width > node.size[0] - 2 * LiteGraph.NODE_TITLE_HEIGHT
    }).map(node => node.title)
}"""
OVERLAPPING_NODES = """() => {
    const apart = (a, b) => a[0] + a[2] <= b[0] || b[0] + b[2] <= a[0] || a[1] + a[3] <= b[1] || b[1] + b[3] <= a[1]
    const pairs = app.graph._nodes.flatMap((a, i) => app.graph._nodes.slice(i + 1).map(b => [a, b]))
    return pairs.filter(([a, b]) => !apart(a.boundingRect, b.boundingRect)).map(([a, b]) => `${a.title} and ${b.title}`)
}"""
# Links as the frontend has drawn them, against the rims of all nodes; of the two that a link joins, without the margin of their slots.
HIDDEN_LINKS = """() => {
    const pen = document.createElement('canvas').getContext('2d'), slots = 16, step = 3, {links, reroutes, _nodes} = app.graph
    pen.lineWidth = 4
    const rim = ([left, top, width, height]) => {
        const points = []
        for (let x = left; x <= left + width; x += step) points.push([x, top], [x, top + height])
        for (let y = top; y <= top + height; y += step) points.push([left, y], [left + width, y])
        return points
    }
    const outer = new Map(_nodes.map(node => [node, rim(node.boundingRect)]))
    const inner = new Map(_nodes.map(node => {
        const [left, top, width, height] = node.boundingRect
        return [node, node.flags.collapsed ? [] : rim([left + slots, top, width - 2 * slots, height])]
    }))
    const parts = [...links.values()].map(link => [link.path, [link]])
    for (const reroute of reroutes.values()) parts.push([reroute.path, [...reroute.linkIds].map(id => links.get(id))])
    const behind = []
    for (const [path, along] of parts) {
        const ends = new Set(along.flatMap(link => [link.origin_id, link.target_id]))
        for (const node of _nodes)
            if ((ends.has(node.id) ? inner : outer).get(node).some(([x, y]) => pen.isPointInStroke(path, x, y)))
                behind.push(`${app.graph.getNodeById(along[0].origin_id).title} to ${along.map(link =>
                    app.graph.getNodeById(link.target_id).title)} behind ${node.title}`)
    }
    return behind
}"""
SECONDS = 600
SCREENSHOTS = ROOT / "output" / "screenshots"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = find_chromium()
    if chromium is None:
        message = "browser tests need chromium or chrome: install it, on Debian with `apt install chromium`"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(60_000)
    yield page
    page.close()


def trouble(page: Any) -> list[str]:
    return [*page.evaluate(UNKNOWN_NODES), *page.locator(TROUBLE).all_inner_texts()]


def test_the_template_opens_complete(ui_workflow: Path, server: Server, object_info: dict[str, Any], page: Any) -> None:
    skip_without_splats(ui_workflow, object_info)
    open_template(page, server, ui_workflow.stem)
    assert page.evaluate("app.graph._nodes.length") == len(load(ui_workflow)["nodes"])
    if needs_files(ui_workflow):  # which the host misses here
        assert page.evaluate(UNKNOWN_NODES) == []
    else:
        assert trouble(page) == []


def test_a_missing_node_is_noticed(server: Server, page: Any) -> None:
    page.goto(server.url)
    page.wait_for_function("window.app?.graph")
    node = {"id": 1, "type": "NoSuchNode", "pos": [0, 0], "size": [100, 100], "inputs": [], "outputs": [], "properties": {}}
    page.evaluate("graph => app.loadGraphData(graph)", {"last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [], "version": 0.4})
    page.wait_for_selector(TROUBLE)
    assert "NoSuchNode" in trouble(page)


def photograph(page: Any, node: int) -> NDArray[np.uint8]:
    """A screenshot of one node, in the middle of the view: (H, W, 3)."""
    box = page.evaluate(
        """id => {
            const node = app.graph.getNodeById(id), view = app.canvas.ds
            view.scale = 1
            app.canvas.centerOnNode(node)
            app.canvas.draw(true, true)
            return [node.pos[0] + view.offset[0], node.pos[1] + view.offset[1], node.size[0], node.size[1]]
        }""",
        node,
    )
    page.wait_for_timeout(500)
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True))
    return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"))


def difference(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Mean over what both show: a node may grow with its picture."""
    height, width = min(len(before), len(after)), min(before.shape[1], after.shape[1])
    return float(np.abs(after[:height, :width].astype(int) - before[:height, :width]).mean())


def test_the_workflow_runs_in_the_browser_and_shows_its_pictures(server: Server, page: Any) -> None:
    open_template(page, server, "freecontrol")
    shows = [node["id"] for node in load(ROOT / "workflows" / "freecontrol.json")["nodes"] if node["type"] in ("SaveImage", "PreviewImage")]
    assert shows
    before = {node: photograph(page, node) for node in shows}
    page.evaluate(FIT)  # the frontend loads the pictures of nodes that are in view
    page.locator("[data-testid=queue-button]").first.click()
    loaded = "ids => ids.map(id => app.graph.getNodeById(id).imgs).every(imgs => imgs?.length && imgs.every(img => img.naturalWidth > 0))"
    page.wait_for_function(loaded, arg=shows, timeout=SECONDS * 1000)
    page.wait_for_timeout(1000)
    assert trouble(page) == []
    for node in shows:
        assert difference(before[node], photograph(page, node)) > 5, f"node {node} looks as it did before it ran"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.evaluate("app.canvas.fitViewToSelectionAnimated?.()")
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / "freecontrol.png")
    assert np.asarray(Image.open(SCREENSHOTS / "freecontrol.png")).std() > 5


def coloured(picture: NDArray[np.uint8]) -> float:
    """Share of the middle's pixels that have a colour: the host's viewer itself is grey there."""
    height, width = picture.shape[:2]
    middle = picture[height // 3 : -height // 5, width // 4 : -width // 4].astype(int)
    return float((middle.max(-1) - middle.min(-1) > 40).mean())


def test_splats_are_seen_in_the_hosts_viewer(server: Server, object_info: dict[str, Any], page: Any) -> None:
    workflow = ROOT / "workflows" / "splats.json"
    skip_without_splats(workflow, object_info)
    open_template(page, server, "splats")
    viewer = next(node["id"] for node in load(workflow)["nodes"] if node["type"] == "PreviewGaussianSplat")
    page.evaluate("id => app.graph.getNodeById(id).setSize([500, 560])", viewer)
    assert coloured(photograph(page, viewer)) < 0.01
    page.locator("[data-testid=queue-button]").first.click()
    shown = 0.0
    for _ in range(SECONDS // 5):
        page.wait_for_timeout(5000)
        assert trouble(page) == []
        shown = coloured(photograph(page, viewer))
        if shown > 0.05:
            break
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "splats.png")
    assert shown > 0.05
