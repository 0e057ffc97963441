"""What `prepare` attaches, and which models it refuses in which words."""

import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy.model_patcher import ModelPatcher, ModelPatcherDynamic
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.quant_ops import QUANT_ALGOS
from freesteer.host.gradients import memory, passes, preparation
from freesteer.tests.host import tiny

PLAYGROUND = "FreeSteer playground"
STAIRS = [name for name in ("nvfp4", "mxfp8", "int8_tensorwise") if name in QUANT_ALGOS]


def test_preparing_twice_attaches_once_and_never_to_the_model_itself():
    model = tiny.build(PLAYGROUND).model
    prepared = preparation.prepare(preparation.prepare(model))
    assert len(prepared.get_callbacks(CallbacksMP.ON_PRE_RUN, preparation.KEY)) == 1
    assert len(prepared.get_wrappers(WrappersMP.PREPARE_SAMPLING, preparation.KEY)) == 1
    assert not model.get_callbacks(CallbacksMP.ON_PRE_RUN, preparation.KEY)


def test_weights_keep_their_memory_and_values():
    model = tiny.build(PLAYGROUND, inference=True, rows=3).model
    before = {name: (weight.data_ptr(), weight.sum().item()) for name, weight in model.model.named_parameters()}
    assert all(weight.is_inference() for weight in model.model.parameters())
    preparation.rewrap_weights(model.model)
    assert not any(weight.is_inference() for weight in model.model.parameters())
    assert {name: (weight.data_ptr(), weight.sum().item()) for name, weight in model.model.named_parameters()} == before
    assert preparation.rewrap_weights(model.model) == 0


def test_the_model_is_loaded_fully_and_with_room(monkeypatch):
    model = tiny.build(PLAYGROUND)
    asked: list[tuple[float, bool]] = []
    load = comfy.model_management.load_models_gpu

    def record(models, memory_required=0, force_full_load=False, **options):
        asked.append((memory_required, force_full_load))
        return load(models, memory_required=memory_required, force_full_load=force_full_load, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", record)
    monkeypatch.setattr(model.model.model, "memory_required", lambda input_shape, cond_shapes=None: 1000 * input_shape[0])
    model.sample(steps=1)
    model.sample(preparation.prepare(model.model), steps=1)
    (plain, plain_full), (room, full) = asked
    assert (plain_full, full) == (False, True)
    assert plain == 2000 and room >= memory.footprint(model.model, (), model.latent.shape).whole > plain


def test_a_model_that_the_host_keeps_elsewhere_is_refused(monkeypatch):
    """As --novram does: it leaves weights where they are, and brings each to the GPU when it is needed."""
    model = tiny.from_recipe(tiny.RECIPES[PLAYGROUND])
    load = comfy.model_management.load_models_gpu

    def leave_a_part(models, **options):
        load(models, **options)
        model.model.model.diffusion_model.get_submodule("out").to("meta")

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", leave_a_part)
    with pytest.raises(preparation.NoGradientError, match="--novram"):
        model.sample(preparation.prepare(model.model), steps=1)


def test_a_model_that_does_not_fit_is_refused_in_words(monkeypatch):
    model = tiny.build(PLAYGROUND)

    def fail(models, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", fail)
    with pytest.raises(preparation.NoGradientError, match="does not fit: load a smaller version"):
        model.sample(preparation.prepare(model.model), steps=1)


def test_normal_copies_inference_tensors_only_and_keeps_the_nest():
    with torch.inference_mode():
        inference = torch.ones(2)
    plain, thing = torch.ones(2), object()
    result = passes.normal({"a": [inference, plain], "b": (inference, None), "c": thing})
    assert not result["a"][0].is_inference() and not result["b"][0].is_inference()
    assert result["a"][1] is plain and result["b"][1] is None and result["c"] is thing


def test_several_gpus_are_refused_whichever_node_comes_first():
    model = tiny.build(PLAYGROUND).model
    split = model.clone()
    split.set_additional_models("multigpu", [model.clone()])
    with pytest.raises(preparation.NoGradientError, match="MultiGPU"):
        preparation.prepare(split)
    prepared = preparation.prepare(model)
    prepared.set_additional_models("multigpu", [model.clone()])
    with pytest.raises(preparation.NoGradientError, match="MultiGPU"):
        prepared.pre_run()


@pytest.mark.parametrize("form", STAIRS)
def test_quantised_inputs_are_refused(form):
    with pytest.raises(preparation.NoGradientError, match="bf16, fp16 or fp8"):
        preparation.prepare(tiny.quantised("Flux", form).model)


def test_fast_fp8_is_refused():
    with pytest.raises(preparation.NoGradientError, match="fp8_matrix_mult"):
        preparation.prepare(tiny.assemble(tiny.RECIPES["Flux"], True, torch.float8_e4m3fn, torch.float32, operations=comfy.ops.fp8_ops))


class Streamed(ModelPatcher):
    """The host's ModelPatcherDynamic turns into a plain one on a CPU, so this says that it is one."""

    non_dynamic_delegate_model = None
    get_non_dynamic_delegate = ModelPatcherDynamic.get_non_dynamic_delegate

    def is_dynamic(self):
        return True


def test_a_model_that_streams_its_weights_is_loaded_again_without_that():
    source = tiny.build(PLAYGROUND).model
    model = Streamed(source.model, source.load_device, source.offload_device)
    loads: list[bool] = []

    def load(disable_dynamic=False):
        loads.append(disable_dynamic)
        return tiny.build(PLAYGROUND, rows=2).model

    model.cached_patcher_init = (load, ())
    prepared = preparation.prepare(model)
    assert preparation.prepare(model).model is prepared.model  # not a second time
    assert loads == [True] and type(prepared) is ModelPatcher and prepared.model is not source.model


def test_a_model_that_streams_its_weights_and_cannot_be_loaded_again_is_refused():
    source = tiny.build(PLAYGROUND).model
    with pytest.raises(preparation.NoGradientError, match="Load Checkpoint"):
        preparation.prepare(Streamed(source.model, source.load_device, source.offload_device))
