"""python -m tools.demo URL WORKFLOW FOLDER: queues a workflow on a running server and puts its pictures on one sheet.

The sheet moves if they are clips."""

import asyncio
import io
import json
import sys
import uuid
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
from PIL import Image, ImageDraw, ImageFont

from . import Failure

ORDER = ("condition", "unsteered", "steered", "plain")  # columns of the sheet; whatever else is saved comes after
SECONDS = 600
CELL, GAP, HEAD = 256, 12, 48  # pixels
ROWS = 4  # below each other
MILLISECONDS = 125  # of a frame


class Result(NamedTuple):
    """What a workflow gave: pictures by column, and the texts that its nodes showed."""

    pictures: dict[str, list[Image.Image]]
    texts: list[str]


def columns(workflow: dict[str, Any]) -> dict[str, str]:
    """Node id -> column, for every node that saves: the last part of its file name prefix."""
    saving = {node: str(data["inputs"]["filename_prefix"]) for node, data in workflow.items() if "filename_prefix" in data["inputs"]}
    return {node: prefix.replace("\\", "/").rsplit("/", 1)[-1] for node, prefix in saving.items()}


def clip_length(workflow: dict[str, Any]) -> int:
    """Frames of the clips that it draws; 1 if these are pictures."""
    return max((data["inputs"]["length"] for data in workflow.values() if data["class_type"] == "FreeSteerEmptyClip"), default=1)


def sort_columns(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def show(workflow: dict[str, Any], message: dict[str, Any], started: set[str]) -> None:
    """One line of progress, renewed in place on a terminal; elsewhere one line for each node."""
    node = message.get("node")
    if node not in workflow:
        return
    new = node not in started
    started.add(node)
    title = (workflow[node].get("_meta") or {}).get("title") or workflow[node]["class_type"]
    line = f"{len(started):2}/{len(workflow)} {title}"
    if sys.stdout.isatty():
        bar = "#" * round(24 * message.get("value", 0) / max(message.get("max", 1), 1))
        print(f"\r[{bar:24}] {line[:60]:60}", end="", flush=True)
    elif new:
        print(line, flush=True)


async def follow(socket: "aiohttp.ClientWebSocketResponse[bool]", job: str, workflow: dict[str, Any]) -> dict[str, Any]:
    """The outputs by node, when the job has finished."""
    results: dict[str, Any] = {}
    started: set[str] = set()
    async for event in socket:
        if event.type != aiohttp.WSMsgType.TEXT:
            continue  # pictures of the steps
        message = json.loads(event.data)
        kind, data = message["type"], message.get("data") or {}
        if data.get("prompt_id") != job:
            continue
        if kind in ("executing", "progress"):
            show(workflow, data, started)
        elif kind == "executed":
            results[data["node"]] = data.get("output") or {}
        elif kind == "execution_error":
            raise Failure(f"{data['node_type']} (node {data['node_id']}) failed: {data['exception_message'].strip()}")
        elif kind == "execution_interrupted":
            raise Failure("The workflow was interrupted.")
        elif kind == "execution_success":
            return results
    raise Failure("The server closed the connection before the workflow was done.")


async def run(url: str, workflow: dict[str, Any]) -> Result:
    client = uuid.uuid4().hex
    async with aiohttp.ClientSession(url) as session, session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket:
        async with session.post("/prompt", json={"prompt": workflow, "client_id": client}) as answer:
            said = await answer.json()
            if answer.status != 200:
                raise Failure(f"ComfyUI refused the workflow: {json.dumps(said)[:800]}")
        try:
            results = await asyncio.wait_for(follow(socket, said["prompt_id"], workflow), SECONDS)
        except asyncio.TimeoutError:
            raise Failure(f"The workflow did not finish in {SECONDS} s.") from None
        print(flush=True)
        pictures: dict[str, list[Image.Image]] = {}
        texts: list[str] = []
        for node, output in results.items():
            name = columns(workflow).get(node)
            for file in output.get("images", []) if name else []:
                async with session.get("/view?" + urlencode(file)) as answer:
                    pictures.setdefault(str(name), []).append(Image.open(io.BytesIO(await answer.read())).convert("RGB"))
            texts += [str(text) for text in output.get("text", [])]
    return Result(pictures, texts)


def contact_sheet(pictures: dict[str, list[Image.Image]]) -> Image.Image:
    """A labelled column for each name, a row for each picture of its batch; more rows go on beside the first ones."""
    count = max(map(len, pictures.values()))
    blocks = [block(pictures, range(start, min(start + ROWS, count))) for start in range(0, count, ROWS)]
    sheet = Image.new("RGB", (sum(part.width + GAP for part in blocks) - GAP, blocks[0].height), "white")
    for place, part in enumerate(blocks):
        sheet.paste(part, (place * (part.width + GAP), 0))
    return sheet


def block(pictures: dict[str, list[Image.Image]], rows: range) -> Image.Image:
    """Some rows of the sheet. A single picture, as of one condition for all, stands in every row."""
    names = sort_columns(list(pictures))
    part = Image.new("RGB", (GAP + len(names) * (CELL + GAP), HEAD + len(rows) * (CELL + GAP)), "white")
    draw = ImageDraw.Draw(part)
    font = ImageFont.load_default(22)
    for column, name in enumerate(names):
        left = GAP + column * (CELL + GAP)
        draw.text((left + CELL / 2, HEAD / 2), name.replace("_", " "), "black", font, anchor="mm")
        for place, row in enumerate(rows):
            batch = pictures[name]
            if row < len(batch) or len(batch) == 1:
                cell = fit(batch[row % len(batch)])
                part.paste(cell, (left + (CELL - cell.width) // 2, HEAD + place * (CELL + GAP) + (CELL - cell.height) // 2))
    return part


def fit(picture: Image.Image) -> Image.Image:
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def main(url: str, file: Path, folder: Path) -> None:
    if not file.is_file():
        raise Failure(f"{file} is missing: get the whole repository again.")
    workflow = json.loads(file.read_text(encoding="utf-8"))
    result = asyncio.run(run(url, workflow))
    if not result.pictures:
        raise Failure(f"{file.name} saved no picture: it needs SaveImage nodes.")
    (folder / "demo").mkdir(parents=True, exist_ok=True)
    for name, batch in result.pictures.items():
        for number, picture in enumerate(batch, 1):
            picture.save(folder / "demo" / f"{name}_{number}.png")
    frames = clip_length(workflow)
    sheets = [contact_sheet({name: batch[frame::frames] for name, batch in result.pictures.items()}) for frame in range(frames)]
    sheet = folder / ("demo.png" if frames == 1 else "demo_video.webp")
    sheets[0].save(sheet, save_all=frames > 1, append_images=sheets[1:], duration=MILLISECONDS, loop=0)
    for text in result.texts:
        print(text)
    print(f"The sheet:    {sheet}\nThe pictures: {folder / 'demo'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except (Failure, OSError, aiohttp.ClientError) as failure:
        sys.exit(f"\n{failure}")
