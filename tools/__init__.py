"""What run.py is made of. Everything here but demo.py and draw_workflows.py needs only the standard library."""


class Failure(Exception):
    """Something that a person can put right: one sentence with the remedy, shown without a traceback."""
