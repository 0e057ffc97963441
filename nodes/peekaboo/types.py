"""Under which names the Peekaboo nodes are found."""

CATEGORY = "FreeSteer/Peekaboo"
ALIASES = [
    "peekaboo", "bounding box", "box control", "regional prompt", "layout", "trajectory", "object placement", "attention mask",
    "trailblazer", "gligen", "motion path",
]  # fmt: skip
