"""The curves of a run as a picture."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 900, 220  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 30, 30  # margins


def means(values: Sequence[float], width: int) -> list[float]:
    """Means of so many neighbours each; of what is left over at the end, too."""
    parts = [values[i : i + width] for i in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]


def draw(history: Mapping[str, Sequence[float]]) -> Image.Image:
    """One panel a figure, below each other: its values over the steps, evened out where there are more than points to draw."""
    page = Image.new("RGB", (WIDTH, HEIGHT * len(history)), "white")
    pen = ImageDraw.Draw(page)
    right, down = WIDTH - RIGHT, HEIGHT - BOTTOM
    for panel, (figure, values) in enumerate(history.items()):
        top = panel * HEIGHT
        shown = means(values, max(1, len(values) // 80))
        low, high = min(shown), max(shown)
        across, along = (right - LEFT) / max(len(shown) - 1, 1), (down - TOP) / (high - low or 1)
        points = [(LEFT + across * i, top + down - along * (value - low)) for i, value in enumerate(shown)]
        pen.text((LEFT, top + TOP - 22), f"{figure}, {len(values)} steps, last {shown[-1]:.4g}", fill="black")
        pen.line([(LEFT, top + TOP), (LEFT, top + down), (right, top + down)], fill="grey")
        pen.text((4, top + TOP), f"{high:.3g}", fill="grey")
        pen.text((4, top + down - 12), f"{low:.3g}", fill="grey")
        pen.line(points, fill="#2060c0", width=2)
    return page
