"""Weight deltas: put on exactly, taken off to the bit, kept in files that stock diffusers reads."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

import tiny
from oneword.concepts import deltas, formats
from oneword.concepts.concept import Concept, ConceptError
from oneword.concepts.deltas import DeltaError
from oneword.concepts.formats.contents import FormatError
from oneword.concepts.inspection import facts
from oneword.concepts.mixing import average
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected


FAST = SamplingConfig(num_inference_steps=3)
KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A pipeline of its own, since these tests change it for a while."""
    folder = tiny.save(
        tiny.make("stable_diffusion", seed=3), tmp_path_factory.mktemp("models") / "tiny"
    )
    return load_backbone(ModelConfig(model=str(folder), device="cpu"))


def matrices(backbone, rank=2, scale=0.3, seed=0, suffixes=("to_q", "to_k", "to_v", "to_out.0")):
    """A LoRA of every attention of the denoiser."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, module in backbone.pipeline.unet.named_modules():
        if name.endswith(suffixes) and "attn" in name:
            down = torch.randn(rank, module.in_features, generator=g) * scale
            up = torch.randn(module.out_features, rank, generator=g) * scale
            found |= {f"unet.{name}{deltas.LORA_A}": down, f"unet.{name}{deltas.LORA_B}": up}
    return found


def concept(backbone, changes, token="<thing>"):
    rows = {n: v.rows_of("cat") for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows, deltas=changes)


def standing(backbone):
    """Every module and parameter object, with its bits and its flag."""
    unet = backbone.pipeline.unet
    return (
        {name: id(module) for name, module in unet.named_modules()},
        {name: (id(p), p.detach().clone(), p.requires_grad) for name, p in unet.named_parameters()},
        set(vars(unet)),
    )


def same(before, after):
    return (
        before[0] == after[0]
        and before[2] == after[2]
        and before[1].keys() == after[1].keys()
        and all(
            mine[0] == theirs[0] and torch.equal(mine[1], theirs[1]) and mine[2] == theirs[2]
            for mine, theirs in zip(before[1].values(), after[1].values(), strict=True)
        )
    )


def whole(backbone, scale=0.1, dtype=torch.float16):
    unet = backbone.pipeline.unet
    g = torch.Generator().manual_seed(1)
    found = {}
    for name, parameter in unet.named_parameters():
        key = deltas.name_of_change("unet", name)
        found[key] = (torch.randn(parameter.shape, generator=g) * scale).to(dtype)
    return found


@pytest.mark.parametrize("kind", ["lora", "whole", "both"])
def test_the_model_is_the_old_one_to_the_bit_on_exit_and_by_exception(backbone, kind):
    changes = {} if kind == "whole" else matrices(backbone)
    changes |= {} if kind == "lora" else whole(backbone)
    before, drawn = standing(backbone), backbone.draw(["a cat"], [0], FAST)
    state = torch.random.get_rng_state()
    with injected(backbone, [concept(backbone, changes)]):
        inside = backbone.draw(["a cat"], [0], FAST)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.allclose(drawn, inside, atol=1e-3)
    assert same(before, standing(backbone))
    assert torch.equal(drawn, backbone.draw(["a cat"], [0], FAST))
    with pytest.raises(ZeroDivisionError), injected(backbone, [concept(backbone, changes)]):
        raise ZeroDivisionError
    assert same(before, standing(backbone))
    wrong = changes | {f"unet.nowhere{deltas.WEIGHT}": torch.zeros(2)}
    with pytest.raises(DeltaError), injected(backbone, [concept(backbone, wrong)]):
        pass
    assert same(before, standing(backbone))


def test_a_lora_is_its_product_and_several_changes_add_up(backbone):
    first, second = matrices(backbone, rank=2), matrices(backbone, rank=3, seed=5)
    third = {f"unet.{KEY}{deltas.WEIGHT}": torch.full((8, 32), 0.25)}
    products = {}
    for changes in (first, second):
        for name in changes:
            if name.endswith(deltas.LORA_A):
                stem = name.removesuffix(deltas.LORA_A)
                product = changes[stem + deltas.LORA_B] @ changes[name]
                key = stem + deltas.WEIGHT
                products[key] = products.get(key, 0) + product
    products[f"unet.{KEY}{deltas.WEIGHT}"] += 0.25
    many = [
        concept(backbone, changes, f"<w{i}>") for i, changes in enumerate((first, second, third))
    ]
    with injected(backbone, many):
        together = backbone.draw(["a <w0> and a <w2>"], [1], FAST)
    with injected(backbone, [concept(backbone, products)]):
        by_hand = backbone.draw(["a <thing> and a <thing>"], [1], FAST)
    assert torch.allclose(together, by_hand, atol=1e-4)


def test_only_the_named_weights_change_and_by_what_is_named(backbone):
    delta = torch.full((8, 32), 0.5, dtype=torch.float16)
    before = standing(backbone)[1]
    with injected(backbone, [concept(backbone, {f"unet.{KEY}{deltas.WEIGHT}": delta})]):
        after = standing(backbone)[1]
    for name, (_, bits, _) in before.items():
        expected = bits + 0.5 if name == f"{KEY}.weight" else bits
        assert torch.equal(after[name][1], expected), name


def test_gradients_reach_the_leaves_and_refresh_writes_changes(backbone):
    change = torch.zeros(8, 32)
    name = f"unet.{KEY}{deltas.WEIGHT}"
    with deltas.applied(backbone.pipeline, [{name: change}], trainable=True) as live:
        weight = backbone.pipeline.unet.get_submodule(KEY).weight
        original = weight.detach().clone()
        assert live.leaves[name] is weight
        (gradient,) = torch.autograd.grad(
            backbone.predict(
                torch.ones(1, 4, 16, 16), torch.tensor([9]), backbone.encode_prompt(["a cat"])
            ).sum(),
            [weight],
        )
        assert gradient.any()
        change += 1.0
        live.refresh()
        assert torch.equal(weight, original + 1.0)


def test_files_round_trip(backbone, tmp_path):
    one = concept(backbone, matrices(backbone) | whole(backbone, 1e-4))
    formats.save_concept(one, tmp_path / "one.safetensors")
    found = formats.load_concept(tmp_path / "one.safetensors")
    assert found.deltas.keys() == one.deltas.keys()
    assert all(torch.equal(found.deltas[n], d) for n, d in one.deltas.items())
    assert all(found.deltas[n].dtype == d.dtype for n, d in one.deltas.items())
    assert found.sha256() == one.sha256() != concept(backbone, {}).sha256()
    other = concept(backbone, matrices(backbone, seed=4), "<other>")
    formats.save_concept([one, other], tmp_path / "two.safetensors")
    both = formats.load_all(tmp_path / "two.safetensors")
    assert [c.sha256() for c in both] == [one.sha256(), other.sha256()]


def test_a_changed_delta_is_refused(backbone, tmp_path):
    path = tmp_path / "one.safetensors"
    formats.save_concept(concept(backbone, matrices(backbone)), path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    tensors[f"unet.{KEY}{deltas.LORA_A}"][0, 0] += 1
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(ConceptError, match="must match the file's SHA-256"):
        formats.load_concept(path)


@pytest.mark.parametrize("family", ["stable_diffusion", "sdxl", "sd3", "flux"])
def test_stock_diffusers_draws_the_same_picture(family, tmp_path):
    """``load_lora_weights`` on our file, against our own injection."""
    folder = tiny.save(tiny.make(family), tmp_path / "model")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    part = "unet" if hasattr(backbone.pipeline, "unet") else "transformer"
    g = torch.Generator().manual_seed(0)
    changes = {}
    for name, module in backbone.pipeline.components[part].named_modules():
        if name.endswith(("to_q", "to_k", "to_v")) and isinstance(module, nn.Linear):
            down = torch.randn(2, module.in_features, generator=g) * 0.3
            up = torch.randn(module.out_features, 2, generator=g) * 0.3
            changes |= {f"{part}.{name}{deltas.LORA_A}": down, f"{part}.{name}{deltas.LORA_B}": up}
    one = concept(backbone, changes)
    plain = backbone.draw(["a photo of a cat"], [0], FAST)
    with injected(backbone, [one]):
        ours = backbone.draw(["a photo of a cat"], [0], FAST)
    assert (ours - plain).abs().max() > 1e-3
    files = formats.save_concept(one, tmp_path / "word.safetensors", "diffusers")
    assert files[-1].name == "word_lora.safetensors"
    backbone.pipeline.load_lora_weights(files[-1])
    assert torch.allclose(backbone.draw(["a photo of a cat"], [0], FAST), ours, atol=1e-4)
    backbone.pipeline.unload_lora_weights()
    native = formats.save_concept(one, tmp_path / "native.safetensors")[0]
    lora = {k: v for k, v in safetensors.torch.load_file(native).items() if "lora" in k}
    backbone.pipeline.load_lora_weights(lora)
    assert torch.allclose(backbone.draw(["a photo of a cat"], [0], FAST), ours, atol=1e-4)


def test_deltas_of_another_model_are_refused_with_the_reason(backbone):
    def use(changes):
        with injected(backbone, [concept(backbone, changes)]):
            pass

    with pytest.raises(DeltaError, match=r"for a model of this pipeline \(.*unet.*'transformer'"):
        use({f"transformer.{KEY}{deltas.WEIGHT}": torch.zeros(8, 32)})
    with pytest.raises(DeltaError, match=r"for modules of this model, got 'unet\.mid\.x\.diff'"):
        use({f"unet.mid.x{deltas.WEIGHT}": torch.zeros(8, 32)})
    with pytest.raises(DeltaError, match="for parameters of this model"):
        use({f"unet.{KEY}{deltas.BIAS}": torch.zeros(8)})
    with pytest.raises(DeltaError, match=r"got \(8, 31\) .* which is \(8, 32\) here"):
        use({f"unet.{KEY}{deltas.WEIGHT}": torch.zeros(8, 31)})
    down, up = f"unet.{KEY}{deltas.LORA_A}", f"unet.{KEY}{deltas.LORA_B}"
    with pytest.raises(DeltaError, match=r"which is \(2, 32\) here"):
        use({down: torch.zeros(2, 31), up: torch.zeros(8, 2)})
    with pytest.raises(DeltaError, match=r"which is \(8, 2\) here"):
        use({down: torch.zeros(2, 32), up: torch.zeros(9, 2)})
    with pytest.raises(DeltaError, match="for linear layers, got one for 'conv_in', a Conv2d"):
        use({"unet.conv_in.lora_A.weight": torch.zeros(2, 4),
             "unet.conv_in.lora_B.weight": torch.zeros(8, 2)})  # fmt: skip
    with (
        deltas.applied(backbone.pipeline, [matrices(backbone)]),
        pytest.raises(DeltaError, match="already has adapters"),
    ):
        use(matrices(backbone))


def test_deltas_that_are_not_whole_are_refused(backbone):
    name = f"unet.{KEY}{deltas.LORA_A}"
    with pytest.raises(DeltaError, match=r"must have a matrix .* got \(2, 32\) and None"):
        concept(backbone, {name: torch.zeros(2, 32)})
    with pytest.raises(DeltaError, match=r"got 'unet.x.alpha'"):
        concept(backbone, {"unet.x.alpha": torch.ones(1)})
    with pytest.raises(DeltaError, match="must be finite floats"):
        concept(backbone, {f"unet.{KEY}{deltas.WEIGHT}": torch.full((8, 32), torch.nan)})


def test_layouts_without_room_for_deltas_refuse_them(backbone, tmp_path):
    lora, full = matrices(backbone), whole(backbone)
    for layout in ("kohya", "a1111", "authors"):
        with pytest.raises(FormatError, match="Cannot write '<thing>' in the layout"):
            formats.save_concept(concept(backbone, lora), tmp_path / "x", layout)
    with pytest.raises(FormatError, match="at most one LoRA and no other weight deltas"):
        formats.save_concept(concept(backbone, full), tmp_path / "x.safetensors", "diffusers")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConceptError, match=r"Cannot combine '<thing>' .* weight deltas"):
        average([concept(backbone, lora), concept(backbone, {})], "<mix>")


def test_inspection_tells_of_deltas(backbone, tmp_path):
    path = tmp_path / "one.safetensors"
    formats.save_concept(concept(backbone, matrices(backbone)), path)
    file = formats.read(path)
    told = facts(file, file.concepts[0])["weight_deltas"]
    assert told["lora"] == told["tensors"] == len(matrices(backbone))
    assert told["parts"] == ["unet"]
    assert told["size_mb"] == pytest.approx(deltas.size_mb(matrices(backbone)), abs=1e-3)


def test_a_parameter_that_files_have_no_name_for(backbone):
    assert deltas.name_of_change("transformer", "scale_shift_table") is None
    assert deltas.name_of_change("unet", "conv_in.bias") == "unet.conv_in.diff_b"
