import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """The tiny models are too small to share: two threads only wait for each other, and long, on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
