"""The pack in the host's real frontend: its workflows open from the template browser, run, and show their pictures."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from freesteer.tools.draw_workflows import WINDOW, open_page, open_template, wait_for_template
from freesteer.tools.load_pack import ROOT
from freesteer.tools.server import Server
from freesteer.tools.workplace import CHROMIUM_FLAGS, find_chromium
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import sync_playwright

from .conftest import lacking, load, needs_files, skip_without_splats

TROUBLE = "[data-testid=error-overlay], .p-toast-message-error, .p-dialog, [role=alertdialog]"
UNKNOWN_NODES = """app.graph._nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))
    .map(node => node.type)
    .filter(type => !['CheckpointLoaderSimple', 'LoadImage', 'LoadVideo', 'LoadDA3Model'].includes(type))"""  # files of the user
LEAST_ZOOM = 0.75  # below, titles are hard to read
# Nodes on the screen that are not whole in view: a corner is outside, or under a panel of the frontend.
HIDDEN_NODES = """() => {
    const seen = (x, y) => {
        const element = document.elementFromPoint(x, y)
        return element && (element == app.canvas.canvas || element.closest('.dom-widget, [data-testid=error-overlay]'))
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
PLAYABLE_CLIP = "() => [...document.querySelectorAll('video')].some(video => video.videoWidth > 0 && video.duration > 0)"
# Mean difference, of 255, of the first video's frames at a tenth and at six tenths of it.
MOVES = """async () => {
    const video = [...document.querySelectorAll('video')].find(video => video.videoWidth > 0 && video.duration > 0)
    const canvas = document.createElement('canvas'), pen = canvas.getContext('2d')
    Object.assign(canvas, {width: video.videoWidth, height: video.videoHeight})
    video.loop = false
    video.pause()
    const shown = async share => {
        const ready = new Promise(done => video.addEventListener('seeked', done, {once: true}))
        video.currentTime = share * video.duration
        await ready
        pen.drawImage(video, 0, 0)
        return pen.getImageData(0, 0, canvas.width, canvas.height).data
    }
    const early = await shown(0.1), late = await shown(0.6)
    return early.reduce((sum, value, i) => sum + Math.abs(value - late[i]), 0) / early.length
}"""
SECONDS = 600
SCREENSHOTS = ROOT / "output" / "screenshots"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = find_chromium()
    if chromium is None:
        lacking("browser tests need chromium or chrome: install it, on Debian with `apt install chromium`")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def new_page(browser: Any) -> Any:
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(60_000)
    return page


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = new_page(browser)
    yield page
    page.close()


@pytest.fixture(scope="module")
def template(ui_workflow: Path, server: Server, object_info: dict[str, Any], browser: Any) -> Iterator[Any]:
    """A page on which a template has been opened."""
    skip_without_splats(ui_workflow, object_info)
    page = new_page(browser)
    open_template(page, server, ui_workflow.stem)
    yield page
    page.close()


def trouble(page: Any) -> list[str]:
    return [*page.evaluate(UNKNOWN_NODES), *page.locator(TROUBLE).all_inner_texts()]


def test_the_template_opens_complete(ui_workflow: Path, template: Any) -> None:
    assert template.evaluate("app.graph._nodes.length") == len(load(ui_workflow)["nodes"])
    if needs_files(ui_workflow):  # which the host misses here
        assert template.evaluate(UNKNOWN_NODES) == []
    else:
        assert trouble(template) == []


def test_the_template_opens_readable(template: Any) -> None:
    assert template.evaluate("app.canvas.ds.scale") >= LEAST_ZOOM
    assert not template.evaluate("app.canvas.low_quality")
    assert template.evaluate(CUT_TITLES) == []
    assert template.evaluate(HIDDEN_NODES) == []


def test_nothing_of_the_template_lies_on_anything_else(template: Any) -> None:
    assert template.evaluate(OVERLAPPING_NODES) == []
    assert template.evaluate(HIDDEN_LINKS) == []


def contains(group: list[float], node: dict[str, Any]) -> bool:
    (left, top, width, height), (x, y) = group, node["pos"]
    return left < x < left + width and top < y < top + height


def test_the_template_has_named_groups_and_says_what_to_try(ui_workflow: Path) -> None:
    workflow = load(ui_workflow)
    notes = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    titles = [group["title"] for group in workflow["groups"]]
    assert titles[:1] in (["Model"], ["Clip"])
    for node in workflow["nodes"]:
        if node not in notes:
            assert sum(contains(group["bounding"], node) for group in workflow["groups"]) == 1, f"{node['type']} is in no group, or in two"
    (note,) = notes
    assert len(re.findall(r"[.!?](?:\s|$)", note["widgets_values"][0])) == 3


def exported(page: Any) -> dict[str, Any]:
    """The graph as the frontend queues it."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def assert_same_work(given: dict[str, Any], wanted: dict[str, Any], object_info: dict[str, Any]) -> None:
    """Two API workflows, where the first may tell defaults that the second leaves out."""
    assert {number: node["class_type"] for number, node in given.items()} == {n: node["class_type"] for n, node in wanted.items()}
    for number, node in wanted.items():
        inputs = given[number]["inputs"]
        compared = set(node["inputs"]) - {"viewport_state"}  # where the camera of a viewer stands
        assert {name: inputs.get(name) for name in compared} == {name: node["inputs"][name] for name in compared}, node["class_type"]
        schema = object_info[node["class_type"]]["input"]
        for name in set(inputs) - set(node["inputs"]):
            assert inputs[name] == {**schema.get("required", {}), **schema.get("optional", {})}[name][1]["default"], name


def test_the_template_is_its_api_workflow(ui_workflow: Path, template: Any, object_info: dict[str, Any]) -> None:
    assert_same_work(exported(template), load(ui_workflow.parent / "api" / ui_workflow.name), object_info)


def test_a_workflow_of_0_1_opens_as_it_was(old_ui_workflow: Path, server: Server, object_info: dict[str, Any], page: Any) -> None:
    skip_without_splats(old_ui_workflow, object_info)
    open_page(page, server.url)
    workflow = load(old_ui_workflow)
    page.evaluate("graph => app.loadGraphData(graph)", workflow)
    page.wait_for_timeout(2000)
    assert page.evaluate(UNKNOWN_NODES) == []
    assert page.evaluate("[app.graph._nodes.length, app.graph.links.size]") == [len(workflow["nodes"]), len(workflow["links"])]
    assert_same_work(exported(page), load(old_ui_workflow.parent / "api" / old_ui_workflow.name), object_info)


def test_what_hides_something_is_noticed(server: Server, page: Any) -> None:
    open_template(page, server, "freecontrol")
    link = "Load Playground Model to KSampler, unsteered behind Prompt"
    assert link not in page.evaluate(HIDDEN_LINKS)
    move = "([title, x, y]) => { app.graph._nodes.find(node => node.title == title).pos = [x, y]; app.canvas.draw(true, true) }"
    page.evaluate(move, ["Prompt", 280, 20])
    assert link in page.evaluate(HIDDEN_LINKS)
    page.evaluate(move, ["Prompt", 280, 180])
    assert page.evaluate(OVERLAPPING_NODES) == ["Prompt and Negative prompt"]
    page.evaluate(move, ["Steered", 1500, 700])  # below the panel with the map
    page.evaluate("app.graph._nodes.find(node => node.title == 'Prompt').title = 'A prompt that says what is drawn'")
    assert "Steered" in page.evaluate(HIDDEN_NODES)
    assert page.evaluate(CUT_TITLES) == ["A prompt that says what is drawn"]


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


def open_in_template_browser(page: Any, server: Server, name: str) -> None:
    """On the way of a user: Templates, Extensions, FreeSteer, and a click on the card."""
    page.goto(server.url)
    page.wait_for_selector("[data-testid=queue-button]")
    page.wait_for_timeout(3000)
    if not page.get_by_test_id("template-workflows-content").is_visible():  # at first it opens by itself
        page.locator(".templates-tab-button").click()
    page.get_by_text("FreeSteer", exact=True).click()
    page.get_by_test_id(f"template-workflow-{name}").click()
    wait_for_template(page, name)


def test_a_template_runs_from_the_template_browser_and_shows_its_pictures(server: Server, page: Any) -> None:
    open_in_template_browser(page, server, "freecontrol")
    assert trouble(page) == []
    assert page.evaluate("app.canvas.ds.scale") >= LEAST_ZOOM
    assert page.evaluate(HIDDEN_NODES) == []
    shows = [
        node["id"] for node in load(ROOT / "workflows" / "freecontrol.json")["nodes"] if node["type"] in ("SaveImage", "FreeSteerOverlap")
    ]
    assert len(shows) == 4
    before = {node: photograph(page, node) for node in shows}
    page.evaluate("app.canvas.ds.scale = 0.75; app.canvas.ds.offset = [300, 150]; app.canvas.draw(true, true)")  # all in view
    page.locator("[data-testid=queue-button]").first.click()
    loaded = "ids => ids.map(id => app.graph.getNodeById(id).imgs).every(imgs => imgs?.length && imgs.every(img => img.naturalWidth > 0))"
    page.wait_for_function(loaded, arg=shows, timeout=SECONDS * 1000)
    page.wait_for_timeout(1000)
    assert trouble(page) == []
    assert page.evaluate(OVERLAPPING_NODES) == []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "freecontrol.png")
    for node in shows:
        assert difference(before[node], photograph(page, node)) > 5, f"node {node} looks as it did before it ran"


def coloured(picture: NDArray[np.uint8]) -> float:
    """Share of the middle's pixels that have a colour: the host's viewer itself is grey there."""
    height, width = picture.shape[:2]
    middle = picture[height // 3 : -height // 5, width // 4 : -width // 4].astype(int)
    return float((middle.max(-1) - middle.min(-1) > 40).mean())


def test_splats_are_seen_in_the_hosts_viewer_and_clips_can_be_played(server: Server, object_info: dict[str, Any], page: Any) -> None:
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
    for node in (node["id"] for node in load(workflow)["nodes"] if node["type"] == "SaveVideo"):
        photograph(page, node)  # brings it into view, or there is no player
        page.wait_for_function(PLAYABLE_CLIP)


def test_a_clip_with_a_thing_in_its_box_is_drawn_and_plays(server: Server, page: Any) -> None:
    open_template(page, server, "peekaboo_clip")
    page.locator("[data-testid=queue-button]").first.click()
    nodes = load(ROOT / "workflows" / "peekaboo_clip.json")["nodes"]
    photograph(page, next(node["id"] for node in nodes if node["type"] == "SaveVideo"))  # brings it into view, or there is no player
    page.wait_for_function(PLAYABLE_CLIP, timeout=SECONDS * 1000)
    assert trouble(page) == []
    assert page.evaluate(MOVES) > 2
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "peekaboo_clip.png")
