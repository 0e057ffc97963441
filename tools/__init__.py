"""What run.py is made of. Everything here but demo.py and inside.py needs only the standard library."""
