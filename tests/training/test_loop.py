import importlib.util
import io
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from freesteer.training.files import STATE, load_history
from freesteer.training.loop import Run, RunError
from freesteer.training.settings import Line, Progress, Settings, seed_of
from PIL import Image
from torch import nn

SCRIPT = Path(__file__).with_name("small_run.py")
spec = importlib.util.spec_from_file_location("small_run", SCRIPT)
assert spec is not None and spec.loader is not None
small_run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_run)

STEPS = 30


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the script that is stopped by signals; the tensors are small, and more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Stop(Exception):
    pass


def settings(**options) -> Settings:
    return Settings(**{"steps": STEPS, "learning_rate": 1e-2, "seed": 3, "warm_up": 10, "save_every": 7, **options})


def begun(folder: Path | None = None, **options) -> Run:
    return Run(small_run.network(), settings(**options), folder)


def go(run: Run, watch=lambda progress: None, data=small_run.numbers, error=small_run.error) -> Run:
    run.go(data, partial(error, run.module), watch)
    return run


def stop_at(step: int):
    def watch(progress: Progress) -> None:
        if progress.step == step:
            raise Stop

    return watch


def assert_same(run: Run, other: Run) -> None:
    """To the bit: weights, averages, moments of the optimiser, history."""
    assert run.step == other.step and run.history == other.history
    for one, two in ((run.module.state_dict(), other.module.state_dict()), (run.average, other.average)):
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    one, two = (r.optimiser.state_dict()["state"] for r in (run, other))
    assert all(torch.equal(one[p][name], two[p][name]) for p in two for name in two[p]) and len(one) == len(two)


def test_it_learns():
    losses = go(begun(steps=300)).history["loss"]
    assert sum(losses[-20:]) < 0.4 * sum(losses[:20])


def test_the_same_run_twice_gives_the_same_bits_and_another_seed_others():
    one, two = go(begun()), go(begun())
    assert_same(one, two)
    assert go(begun(seed=4)).history != one.history


def test_the_random_numbers_before_the_run_do_not_matter():
    run = begun()
    torch.rand(1234)
    assert_same(go(run), go(begun()))


@pytest.mark.parametrize("step", [1, 7, 16, STEPS - 1])
def test_a_run_that_was_stopped_and_went_on_equals_one_that_was_not(tmp_path, step):
    with pytest.raises(Stop):
        go(begun(tmp_path), stop_at(step))
    resumed = begun(tmp_path)
    assert resumed.step == step
    assert_same(go(resumed), go(begun()))


def test_what_stops_a_run_amid_a_step_leaves_the_step_before(tmp_path):
    def interrupted(module, batch):
        loss, figures = small_run.error(module, batch)
        loss.register_hook(lambda gradient: stop_at(11)(Progress(run.step, STEPS, {}, 0)))  # in the backward pass
        return loss, figures

    run = begun(tmp_path)
    with pytest.raises(Stop):
        go(run, error=interrupted)
    assert begun(tmp_path).step == 11
    assert_same(go(begun(tmp_path)), go(begun()))  # the running means of the norm, too


def run_and_signal(folder: Path, number: int, step: int) -> int:
    """Starts the script, sends it a signal after that step, and gives its exit code."""
    command = [sys.executable, str(SCRIPT), str(folder), str(STEPS), str(step)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        process.communicate("\n")
    return process.returncode


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number, kept", [(signal.SIGINT, 10), (signal.SIGTERM, 10), (signal.SIGKILL, 7)])
def test_a_process_that_was_stopped_by_a_signal_goes_on_to_the_same_bits(tmp_path, number, kept):
    assert run_and_signal(tmp_path, number, 10) != 0
    resumed = begun(tmp_path)
    assert resumed.step == kept  # saved at once; or, killed, at the last time
    assert_same(go(resumed), go(begun()))


def test_a_file_half_written_is_never_taken_for_a_state(tmp_path, monkeypatch):
    with pytest.raises(Stop):
        go(begun(tmp_path), stop_at(5))

    def torn(content, file) -> None:
        Path(file).write_bytes(b"half a state")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        with pytest.raises(OSError, match="No space"):
            go(begun(tmp_path), stop_at(9))
    assert begun(tmp_path).step == 5
    assert_same(go(begun(tmp_path)), go(begun()))


def test_an_error_amid_an_update_does_not_spoil_what_was_saved(tmp_path):
    run = begun(tmp_path)

    def failing(*_) -> None:  # when the weights are new, but nothing else is
        if run.step == 12:
            raise MemoryError

    run.optimiser.register_step_post_hook(failing)
    with pytest.raises(MemoryError):
        go(run)
    resumed = begun(tmp_path)
    assert resumed.step == 7
    assert_same(go(resumed), go(begun()))


def test_the_batch_of_a_step_is_made_while_the_one_before_is_at_work():
    order = []

    def data(step: int, generator: torch.Generator) -> torch.Tensor:
        order.append(step)
        return small_run.numbers(step, generator)

    go(begun(steps=3), lambda progress: order.append(f"{progress.step} done"), data)
    assert order == [0, 1, "1 done", 2, "2 done", "3 done"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path, bad):
    def data(step, generator):
        return small_run.numbers(step, generator) * (bad if step == 8 else 1)

    with pytest.raises(RunError, match=r"In step 9 the loss is (nan|inf).*smaller learning rate"):
        go(begun(tmp_path), data=data)
    kept = begun(tmp_path)
    assert kept.step == 8 and all(p.isfinite().all() for p in kept.module.parameters())


def test_a_gradient_that_is_no_number_stops_the_run_too(tmp_path):
    def error(module, batch):
        loss, figures = small_run.error(module, batch)
        return loss + (loss - loss.detach()).sqrt(), figures  # worth nothing more, but infinitely steep

    with pytest.raises(RunError, match=r"In step 1 the loss is .* and the length of its gradient (nan|inf)"):
        go(begun(), error=error)


def test_a_run_does_not_go_on_with_another_seed(tmp_path):
    go(begun(tmp_path))
    with pytest.raises(RunError, match="begun with seed 3, not 4"):
        begun(tmp_path, seed=4)


def test_a_finished_run_does_nothing_and_gives_its_average(tmp_path):
    average = go(begun(tmp_path)).average
    again = begun(tmp_path)
    given = again.go(small_run.numbers, lambda batch: pytest.fail("no step was left"))
    assert all(torch.equal(given[name], average[name]) for name in average)


def test_the_average_is_that_of_the_formula():
    run, seen = begun(ema=0.9), []
    seen.append(run.module.state_dict()["0.weight"].clone())
    go(run, lambda progress: seen.append(run.module.state_dict()["0.weight"].clone()))
    expected = seen[0]
    for step, weight in enumerate(seen[1:]):
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(run.average["0.weight"], expected)
    assert run.average["1.num_batches_tracked"] == STEPS  # no weight: as it is


def test_the_learning_rate_goes_up_stays_and_goes_down():
    rates, run = [], begun()
    go(run, lambda progress: rates.append(run.optimiser.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx(1e-3) and rates[9] == rates[19] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-3) and sorted(rates[:10]) == rates[:10] and sorted(rates[20:], reverse=True) == rates[20:]


def test_a_long_gradient_is_shortened():
    lengths: list[float] = []
    for clip in (1e6, 0.01):
        run = begun(steps=1, clip=clip)
        go(run)
        grads = [p.grad for p in run.module.parameters()]
        lengths.append(float(torch.cat([g.flatten() for g in grads if g is not None]).norm()))
    assert lengths[0] > 0.1 and lengths[1] == pytest.approx(0.01, rel=1e-3)


def test_what_needs_no_gradient_is_left_alone():
    module = small_run.network()
    module[0].requires_grad_(False)
    before = [p.clone() for p in module[0].parameters()]
    go(Run(module, settings()))
    assert all(torch.equal(a, b) for a, b in zip(before, module[0].parameters(), strict=True))


@pytest.mark.parametrize(
    ("bfloat16", "processor", "forward"),
    [(False, "AVX512", torch.float32), (True, "AVX512", torch.bfloat16), (True, "AVX2", torch.float32)],
)
def test_mixed_precision_is_of_the_forward_pass_alone_and_where_it_is_fast(monkeypatch, bfloat16, processor, forward):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    seen = {}

    def data(step, generator):
        seen["data"] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        return small_run.numbers(step, generator)

    def error(module, batch):
        seen["forward"] = module[0](batch).dtype
        return small_run.error(module, batch)

    run = go(begun(steps=2, bfloat16=bfloat16), data=data, error=error)
    assert seen == {"data": torch.float32, "forward": forward}
    assert {t.dtype for p in run.module.parameters() for t in (p, p.grad) if t is not None} == {torch.float32}


def test_a_node_trains_outside_of_inference_mode_only():
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match=r"inference_mode\(False\)"):
            go(begun(steps=2))
        with torch.inference_mode(False), torch.no_grad():
            assert go(begun(steps=2)).step == 2


def test_in_a_thread_of_the_host_it_trains_too_and_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = begun()
    thread = threading.Thread(target=go, args=(run,))
    thread.start()
    thread.join()
    assert run.step == STEPS and not list(tmp_path.iterdir())


def test_signals_are_as_before_when_the_run_is_over():
    before = signal.getsignal(signal.SIGTERM)
    go(begun(steps=2), lambda progress: None if signal.getsignal(signal.SIGTERM) is not before else pytest.fail("not noted"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_watch_is_told_how_far_the_run_is():
    told: list[Progress] = []
    go(begun(steps=5), told.append)
    assert [t.step for t in told] == [1, 2, 3, 4, 5] and all(t.steps == 5 for t in told)
    assert told[-1].seconds_left == 0 < told[0].seconds_left
    assert set(told[0].figures) == {"loss", "most"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line():
    for stream, lines in ((Terminal(), 1), (io.StringIO(), 3)):
        line = Line("vae", stream, every=50)
        for step in range(1, 121):
            line(Progress(step, 120, {"loss": 0.5}, 125.4 - step))
        assert stream.getvalue().count("\n") == lines
        assert stream.getvalue().endswith("vae step 120 of 120: loss 0.5; 0 min 05 s left\n")


def test_the_curves_are_drawn_and_the_history_can_be_read(tmp_path):
    run = go(begun(tmp_path))
    assert load_history(tmp_path) == run.history and len(run.history["loss"]) == STEPS
    assert {f.name for f in tmp_path.iterdir()} == {STATE, "curves.png"}
    page = Image.open(tmp_path / "curves.png").convert("RGB")
    blue = [page.crop((61, top, 900, top + 220)).getcolors(1 << 20) for top in (0, 220)]  # a panel for the loss, one for the other
    assert page.height == 440 and all(any(colour == (0x20, 0x60, 0xC0) and n > 500 for n, colour in panel or []) for panel in blue)


def test_seeds_of_steps_differ_and_lie_below_those_to_measure_with():
    seeds = [seed_of(seed, step) for seed in range(20) for step in range(5000)]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 2**30
    assert 0 <= seed_of(2**64 - 1, 10**6) < 2**30


def test_modules_of_one_parameter_train():
    """The smallest thing that a node may train: a vector."""
    wanted = torch.tensor([1.0, -2.0])
    module = nn.ParameterDict({"vector": nn.Parameter(torch.zeros(2))})
    run = Run(module, Settings(400, 5e-2, weight_decay=0.0))
    run.go(lambda step, generator: wanted, lambda batch: ((module["vector"] - batch).square().sum(), {}))
    torch.testing.assert_close(module["vector"].detach(), wanted, atol=0.02, rtol=0)
