"""Ways of needing less memory: what is picked, what it is expected to take, what it changes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import psutil
import pytest
import torch
from torch import nn

import tiny
from oneword.concepts import deltas
from oneword.concepts.concept import Concept
from oneword.concepts.deltas import DeltaError
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ConfigError, ModelError
from oneword.models.loading import load_backbone, needed_memory
from oneword.models.memory import plan as memory
from oneword.models.memory.count import Work
from oneword.models.speed.compiled import Compiled
from oneword.training.job import Job
from oneword.training.loop import invert
from oneword.training.tuning import method
from oneword.vocabulary.inject import injected


has_bitsandbytes = importlib.util.find_spec("bitsandbytes") is not None
packs = pytest.mark.skipif(not has_bitsandbytes, reason="needs bitsandbytes (the extra quant)")


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory):
    return tiny.save(tiny.make("sdxl"), tmp_path_factory.mktemp("memory") / "sdxl")


def job(**fields):
    settings = {
        "placeholder_token": "<toy>",
        "initializer_token": "cat",
        "max_train_steps": 6,
        "train_batch_size": 2,
        "evaluation_steps": 3,
        "num_evaluation_samples": 4,
        "learning_rate": 5e-3,
        "keep": "last",
    }
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return Job(name="a", pictures=pictures, config=InversionConfig(**settings | fields))


def config(folder, **options):
    return ModelConfig(model=str(folder), device="cpu", **options)


def test_what_a_cpu_needs_is_known_though_it_saves_nothing(sdxl_folder):
    from oneword.models.families import sdxl

    own, work = config(sdxl_folder), Work(samples=4)
    assert memory.plan(sdxl.load, own, work) is None  # nothing is asked of it
    found = needed_memory(own, work)
    same = replace(own, gradient_checkpointing=False, offload="none", weights="full")
    assert (found.config, found.counted) == (same, True)
    assert found.expected == memory.plan(sdxl.load, same, work).expected
    fewer = needed_memory(replace(own, micro_batch_size=1), work)
    assert fewer.expected < found.expected < needed_memory(own, Work(samples=8)).expected


def plan_of(folder, work=None, **options):
    from oneword.models.families import sdxl, stable_diffusion

    module = sdxl if folder.name == "sdxl" else stable_diffusion
    return memory.plan(module.load, config(folder, **options), work or Work())


def saved_by_hand(backbone, samples):
    """Bytes that autograd keeps in a real step, weights aside, each storage once."""
    modules = [backbone.denoiser, *(v.text_encoder for v in backbone.vocabularies.values())]
    weights = {
        x.untyped_storage().data_ptr() for m in modules for x in (*m.parameters(), *m.buffers())
    }
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    handles = [
        table.register_forward_hook(lambda m, a, output: output.requires_grad_())
        for v in backbone.vocabularies.values()
        for table in v.tables()
    ]
    size = (backbone.resolution // backbone.autoencoder.factor,) * 2
    x = torch.zeros(samples, backbone.autoencoder.channels, *size)
    t = backbone.sample_t(torch.full((samples,), 0.5), size)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = backbone.predict(x, t, backbone.encode_prompt(["a photo of a cat"] * samples))
    for handle in handles:
        handle.remove()
    assert out.requires_grad
    return sum(size for size, _ in found.values())


def bytes_of(*modules):
    tensors = {id(x): x for m in modules for x in (*m.parameters(), *m.buffers())}
    return sum(x.nbytes for x in tensors.values())


@pytest.mark.parametrize("samples", [1, 3])
def test_the_expected_peak_is_what_a_real_step_keeps(sdxl_folder, samples):
    plan = plan_of(sdxl_folder, Work(samples), gradient_checkpointing=False, offload="none")
    backbone = load_backbone(config(sdxl_folder))
    weights = bytes_of(
        backbone.denoiser,
        backbone.autoencoder.vae,
        *(v.text_encoder for v in backbone.vocabularies.values()),
    )
    real = saved_by_hand(backbone, samples)
    assert plan.expected == pytest.approx(1.1 * (weights + real), rel=0.01)


def test_each_way_is_expected_to_need_less_where_it_should(sdxl_folder):
    work = Work(samples=8)
    whole = plan_of(sdxl_folder, work, gradient_checkpointing=False, offload="none").expected
    vae = plan_of(sdxl_folder, work, gradient_checkpointing=False, offload="vae").expected
    again = plan_of(sdxl_folder, work, gradient_checkpointing=True, offload="vae").expected
    text = plan_of(sdxl_folder, work, gradient_checkpointing=True, offload="text").expected
    everything = plan_of(sdxl_folder, work, gradient_checkpointing=True, offload="all").expected
    assert whole > vae > again > text > everything
    outputs = Work(samples=8, through_encoders=False)
    assert (
        plan_of(sdxl_folder, outputs, gradient_checkpointing=False, offload="none").expected < whole
    )


def test_auto_takes_the_fastest_way_that_fits(sdxl_folder, monkeypatch):
    """The same model under shrinking free memory, by the expected sizes themselves."""

    class Free:
        available = 0

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free)
    asked = {"offload": "none", "weights": "full"}
    sizes = {
        again: plan_of(sdxl_folder, Work(1), gradient_checkpointing=again, **asked).expected
        for again in (False, True)
    }
    for free, again in ((2 * sizes[False], False), (sizes[False] - 1, True), (1, True)):
        Free.available = int(free / memory._USABLE) if free > 1 else 1
        plan = plan_of(sdxl_folder, Work(1), **asked)
        assert plan.config.gradient_checkpointing is again
        assert plan.expected == sizes[again]
    assert "it may not fit" in str(plan)


def test_passes_come_before_recomputation(sdxl_folder, monkeypatch):
    """Where a whole step does not fit and its half does, nothing is computed again."""

    class Free:
        available = 0

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free)
    asked = {"offload": "none", "weights": "full"}
    kept = {"gradient_checkpointing": False, **asked}
    sizes = {
        n: plan_of(sdxl_folder, Work(n), micro_batch_size=n, **kept).expected for n in (8, 4, 2, 1)
    }
    least = plan_of(sdxl_folder, Work(1), gradient_checkpointing=True, **asked).expected
    assert sizes[8] > sizes[4] > sizes[2] > sizes[1] > least
    for count in (4, 2, 1):
        Free.available = int(sizes[count] / memory._USABLE) + 1
        plan = plan_of(sdxl_folder, Work(8), **asked)
        assert plan.config.micro_batch_size == count
        assert plan.config.gradient_checkpointing is False
        assert plan.expected == sizes[count]
    assert f"memory: micro-batches of {count}; expected peak" in str(plan)
    Free.available = int(least / memory._USABLE) + 1
    assert plan_of(sdxl_folder, Work(8), **asked).config.gradient_checkpointing is True
    assert plan_of(sdxl_folder, Work(8, trains=False), **asked).config.micro_batch_size is None


def test_low_keeps_the_numbers_and_lowest_takes_the_least(sdxl_folder):
    low, lowest = (plan_of(sdxl_folder, Work(8), memory=m) for m in ("low", "lowest"))
    assert low.config.weights == "full"
    assert low.config.gradient_checkpointing
    assert lowest.config.weights == ("4bit" if has_bitsandbytes else "full")
    assert lowest.expected <= low.expected
    assert "gradient checkpointing; expected peak" in str(low)


def test_on_a_cpu_of_which_nothing_is_asked_nothing_is_done(sdxl_folder):
    assert plan_of(sdxl_folder) is None
    assert load_backbone(config(sdxl_folder)).memory == ""
    said = load_backbone(config(sdxl_folder, memory="low")).memory
    assert said.startswith("memory: micro-batches of 1, gradient checkpointing; exp")


def test_layers_that_visit_lie_elsewhere_between_two_calls(sdxl_folder):
    backbone = load_backbone(config(sdxl_folder, offload="all"))
    away = [p for p in backbone.denoiser.parameters() if p.is_meta]
    first = next(backbone.denoiser.parameters())
    large = [
        m.weight for m in backbone.denoiser.modules()
        if isinstance(m, nn.Linear | nn.Conv2d) and m.weight.numel() >= 1024
        and m.weight is not first
    ]  # fmt: skip
    assert large
    assert {id(p) for p in large} <= {id(p) for p in away}
    invert(backbone, job())
    assert all(p.is_meta for p in away)


@packs
@pytest.mark.parametrize(
    ("bits", "tolerance"),
    [
        ("8bit", 0.1),
        # on a CPU rows of whole blocks of 64 only, and these are narrower
        pytest.param("4bit", 0.5, marks=pytest.mark.gpu),
    ],
)
def test_packed_weights_learn_nearly_the_same_rows(tiny_folder, tiny_sd, bits, tolerance):
    """Distances are in units of how far training moved the rows."""
    backbone = load_backbone(config(tiny_folder, weights=bits))
    plain = bytes_of(tiny_sd.denoiser, tiny_sd.pipeline.text_encoder)
    assert bytes_of(backbone.denoiser, backbone.pipeline.text_encoder) < plain
    assert not any(isinstance(m, nn.Linear) and type(m) is nn.Linear and m.weight.numel() > 2000
                   for m in backbone.denoiser.modules())  # fmt: skip
    rows = [invert(b, job()).concept.rows["clip"] for b in (tiny_sd, backbone)]
    moved = (rows[0] - tiny_sd.vocabularies["clip"].rows_of("cat")).norm()
    assert 0 < (rows[1] - rows[0]).norm() < tolerance * moved


@packs
def test_a_t5_keeps_what_it_names_as_delicate(tmp_path):
    folder = tiny.save(tiny.make("flux"), tmp_path / "flux")
    encoder = load_backbone(config(folder, weights="4bit")).pipeline.text_encoder_2
    kinds = {name.rpartition(".")[2]: type(m).__name__ for name, m in encoder.named_modules()}
    assert (kinds["wo"], kinds["wi_0"]) == ("Linear", "Linear4bit")


def test_packing_without_the_library_says_what_to_install(tiny_folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"4bit because they need bitsandbytes .* got none installed; pip inst"
    ):
        load_backbone(config(tiny_folder, weights="4bit"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offload": "all", "gradient_checkpointing": False}, "without gradient checkpointing"),
        ({"offload": "text", "weights": "4bit"}, "quantised weights must stay on the device"),
        ({"offload": "all", "compile": "on"}, "compiled denoiser must stay on the device"),
    ],
)
def test_what_cannot_go_together_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**options)


@pytest.mark.parametrize(
    "options", [{"offload": "all"}, pytest.param({"weights": "4bit"}, marks=packs)]
)
def test_weights_that_are_not_whole_do_not_change(tiny_folder, tiny_sd, options):
    """Neither a setup that tunes them, nor a word that brings changes of them."""
    backbone = load_backbone(config(tiny_folder, **options))
    with pytest.raises(DeltaError, match="Cannot change the weights of a UNet2D"):
        method("lora-dreambooth")(backbone, job(setup="lora-dreambooth"))
    name, weight = next(iter(tiny_sd.denoiser.named_parameters()))
    word = Concept(
        placeholder_token="<toy>",
        rows={"clip": torch.ones(1, 32)},
        deltas={deltas.name_of_change("unet", name): torch.zeros_like(weight)},
    )
    with (
        pytest.raises(DeltaError, match="pass --weights full --offload vae"),
        injected(backbone, [word]),
    ):
        pass


@pytest.mark.parametrize(
    ("setup", "options"),
    [
        ("xti", {"gradient_checkpointing": True}),
        ("neti", {"offload": "text"}),
        ("dreamartist", {"gradient_checkpointing": True}),
    ],
)
def test_every_form_of_a_word_learns_the_same_with_less_memory(
    tiny_folder, tiny_sd, setup, options
):
    backbone = load_backbone(config(tiny_folder, **options))
    plain, other = (dict(invert(b, job(setup=setup)).losses) for b in (tiny_sd, backbone))
    assert other == pytest.approx(plain, rel=1e-4)
    assert plain[6] != pytest.approx(plain[0], rel=1e-3)


# --- the compiled denoiser


def _failing(*args, **kwargs):
    raise NotImplementedError("no such operation")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda unet: lambda *a, **k: _scaled(unet(*a, **k)),
            "its numbers differ from the uncompiled",
        ),
        (lambda unet: _failing, "it failed .NotImplementedError: no such operation"),
    ],
)
def test_a_compilation_that_is_wrong_or_fails_is_said_and_done_without(monkeypatch, make, reason):
    unet = tiny.parts.unet()
    monkeypatch.setattr(torch, "compile", lambda *args, **options: make(unet))
    denoiser = Compiled(unet)
    states = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    inputs = (torch.zeros(2, 4, 16, 16), torch.tensor([1, 900]), states)
    with pytest.warns(UserWarning, match=f"{reason}.*training continues without it"):
        found = denoiser(*inputs).sample
    assert denoiser.is_plain
    assert torch.equal(found, unet(*inputs).sample)


def _scaled(output):
    """The right output, with a gradient that is zero, as a compiler once gave."""
    return type(output)(sample=output.sample.detach() + 0 * output.sample)


def test_other_shapes_and_calls_without_gradients_are_plain(monkeypatch):
    calls = []
    unet = tiny.parts.unet()

    def compiled(*args, **kwargs):
        calls.append(len(args[0]))
        return unet(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", lambda *args, **options: compiled)
    denoiser = Compiled(unet)
    assert denoiser.config is unet.config

    def call(count):
        states = torch.zeros(count, 5, 32, requires_grad=True)
        return denoiser(torch.zeros(count, 4, 16, 16), torch.ones(count).long(), states)

    with torch.no_grad():
        call(2)
    assert calls == []
    call(2)
    assert calls == [2, 2]  # looked at, and taken
    call(3)
    call(2)
    assert calls == [2, 2, 2]


def test_steps_that_change_weights_are_plain(tiny_folder, monkeypatch):
    calls = []

    def compiled(unet, **options):
        return lambda *args, **kwargs: calls.append(len(args[0])) or unet(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compiled)
    backbone = load_backbone(config(tiny_folder, compile="on"))
    backbone.sampling = replace(backbone.sampling, num_inference_steps=2)  # of the class pictures
    few = TuningConfig(tuning_steps=2, num_class_images=2)
    for setup in ("lora-dreambooth", "custom-diffusion"):
        method(setup)(backbone, job(setup=setup, tuning=few))
    assert calls == []
    method("pivotal")(backbone, job(setup="pivotal", tuning=few))
    assert len(calls) == 1 + 6  # looked at, then the word's own steps
