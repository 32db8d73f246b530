"""VQGANs from files with the published names: every tensor in its place, and the maths theirs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file

import single_file as single_file_names
from oneword.errors import ModelError
from oneword.images import read_folder
from oneword.models import single_file, taming


LOSS = {
    "loss.perceptual_loss.lin0.model.1.weight": (1, 64, 1, 1),
    "loss.perceptual_loss.net.slice1.0.weight": (64, 3, 3, 3),
    "loss.discriminator.main.0.weight": (64, 3, 4, 4),
}
"""Some of what the loss of the authors' training leaves in its file."""
PUBLISHED = {"ch": 128, "mult": (1, 1, 2, 2, 4), "layers": 2, "z": 256, "dim": 256, "side": 256,
             "attends": (16,)}  # fmt: skip
SMALL = {"ch": 32, "mult": (1, 2), "layers": 1, "z": 12, "dim": 6, "side": 16, "attends": (8,)}


def resnet(name, before, after):
    found = {
        f"{name}.norm1": (before,), f"{name}.conv1": (after, before, 3, 3),
        f"{name}.norm2": (after,), f"{name}.conv2": (after, after, 3, 3),
    }  # fmt: skip
    return found | ({f"{name}.nin_shortcut": (after, before, 1, 1)} if before != after else {})


def attention(name, width):
    kernels = {f"{name}.{part}": (width, width, 1, 1) for part in ("q", "k", "v", "proj_out")}
    return {f"{name}.norm": (width,)} | kernels


def middle(name, width):
    return (
        resnet(f"{name}.block_1", width, width)
        | attention(f"{name}.attn_1", width)
        | resnet(f"{name}.block_2", width, width)
    )


def sizes(*, ch, mult, layers, z, dim, side, attends, rows):
    """Names and sizes of a file's tensors, as arXiv:2012.09841's code lays them out."""
    widths = [ch * factor for factor in mult]
    sides = [side // 2**level for level in range(len(mult))]
    found = {"encoder.conv_in": (ch, 3, 3, 3)}
    before = ch
    for level, width in enumerate(widths):
        for number in range(layers):
            found |= resnet(f"encoder.down.{level}.block.{number}", before, width)
            before = width
            if sides[level] in attends:
                found |= attention(f"encoder.down.{level}.attn.{number}", width)
        if level < len(mult) - 1:
            found[f"encoder.down.{level}.downsample.conv"] = (width, width, 3, 3)
    found |= middle("encoder.mid", widths[-1])
    found |= {"encoder.norm_out": (widths[-1],), "encoder.conv_out": (z, widths[-1], 3, 3)}
    found |= {"decoder.conv_in": (widths[-1], z, 3, 3)} | middle("decoder.mid", widths[-1])
    before = widths[-1]
    for level in reversed(range(len(mult))):
        for number in range(layers + 1):
            found |= resnet(f"decoder.up.{level}.block.{number}", before, widths[level])
            before = widths[level]
            if sides[level] in attends:
                found |= attention(f"decoder.up.{level}.attn.{number}", before)
        if level:
            found[f"decoder.up.{level}.upsample.conv"] = (before, before, 3, 3)
    found |= {"decoder.norm_out": (ch,), "decoder.conv_out": (3, ch, 3, 3)}
    found |= {"quant_conv": (dim, z, 1, 1), "post_quant_conv": (z, dim, 1, 1)}
    both = {f"{name}.weight": size for name, size in found.items()}
    both |= {f"{name}.bias": size[:1] for name, size in found.items()}
    return both | {"quantize.embedding.weight": (rows, dim)} | LOSS


@pytest.fixture(scope="module")
def small():
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(size, generator=generator) * 0.2
        for name, size in sizes(**SMALL, rows=24).items()
    }


# --- the published layout


@pytest.mark.parametrize("rows", [16384, 1024])
def test_the_published_files_map_without_rest(rows):
    """At the published sizes, as shapes."""
    shapes = sizes(**PUBLISHED, rows=rows)
    known = {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down.1.downsample.conv.bias": (128,),
        "encoder.down.2.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.4.attn.1.proj_out.weight": (512, 512, 1, 1),
        "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "encoder.conv_out.weight": (256, 512, 3, 3),
        "decoder.up.4.attn.2.norm.weight": (512,),
        "decoder.up.3.block.0.nin_shortcut.weight": (256, 512, 1, 1),
        "decoder.up.1.upsample.conv.weight": (128, 128, 3, 3),
        "decoder.up.0.block.2.conv2.weight": (128, 128, 3, 3),
        "quantize.embedding.weight": (rows, 256),
        "post_quant_conv.weight": (256, 256, 1, 1),
    }
    assert {name: shapes[name] for name in known} == known
    with torch.device("meta"):
        tensors = {name: torch.empty(size) for name, size in shapes.items()}
    model = taming.model_of(tensors)
    ours = model.state_dict()
    levels = len(model.config.block_out_channels)
    names = {taming.taming_name(name, levels): value for name, value in ours.items()}
    assert len(names) == len(ours)
    assert names.keys() == shapes.keys() - LOSS.keys()
    squeezed = {name: tuple(n for n in size if n != 1) for name, size in shapes.items()}
    for name, value in names.items():
        assert tuple(n for n in value.shape if n != 1) == squeezed[name], name
    assert model.config.num_vq_embeddings == rows
    assert [*model.config.block_out_channels] == [128, 128, 256, 256, 512]
    assert not any(p.requires_grad for p in model.parameters())


# --- the maths


def conv(t, name, x, **options):
    return F.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"], **options)


def normalised(t, name, x):
    return F.group_norm(x, 32, t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-6)


def through_resnet(t, name, x):
    h = conv(t, f"{name}.conv1", F.silu(normalised(t, f"{name}.norm1", x)), padding=1)
    h = conv(t, f"{name}.conv2", F.silu(normalised(t, f"{name}.norm2", h)), padding=1)
    short = f"{name}.nin_shortcut"
    return h + (conv(t, short, x) if f"{short}.weight" in t else x)


def through_attention(t, name, x):
    h = normalised(t, f"{name}.norm", x)
    q, k, v = (conv(t, f"{name}.{part}", h).flatten(2) for part in "qkv")
    weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
    return x + conv(t, f"{name}.proj_out", (v @ weights.transpose(1, 2)).reshape(x.shape))


def through_level(t, name, x, count):
    for number in range(count):
        x = through_resnet(t, f"{name}.block.{number}", x)
        if f"{name}.attn.{number}.norm.weight" in t:
            x = through_attention(t, f"{name}.attn.{number}", x)
    return x


def through_middle(t, name, x):
    x = through_resnet(t, f"{name}.block_1", x)
    return through_resnet(t, f"{name}.block_2", through_attention(t, f"{name}.attn_1", x))


def encoded(t, x, *, mult, layers, **_):
    x = conv(t, "encoder.conv_in", x, padding=1)
    for level in range(len(mult)):
        x = through_level(t, f"encoder.down.{level}", x, layers)
        if level < len(mult) - 1:
            x = F.pad(x, (0, 1, 0, 1))
            x = conv(t, f"encoder.down.{level}.downsample.conv", x, stride=2)
    x = F.silu(normalised(t, "encoder.norm_out", through_middle(t, "encoder.mid", x)))
    return conv(t, "quant_conv", conv(t, "encoder.conv_out", x, padding=1))


def decoded(t, latents, *, mult, layers, **_):
    x = conv(t, "decoder.conv_in", conv(t, "post_quant_conv", latents), padding=1)
    x = through_middle(t, "decoder.mid", x)
    for level in reversed(range(len(mult))):
        x = through_level(t, f"decoder.up.{level}", x, layers + 1)
        if level:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = conv(t, f"decoder.up.{level}.upsample.conv", x, padding=1)
    return conv(t, "decoder.conv_out", F.silu(normalised(t, "decoder.norm_out", x)), padding=1)


def test_a_model_encodes_and_decodes_as_the_names_of_its_tensors_say(small):
    model = taming.model_of(small)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    latents = torch.randn(2, 6, 8, 8, generator=generator)
    with torch.no_grad():
        assert torch.allclose(
            model.encode(pixels).latents, encoded(small, pixels, **SMALL), atol=1e-5
        )
        found = model.decode(latents, force_not_quantize=True).sample
        assert torch.allclose(found, decoded(small, latents, **SMALL), atol=1e-5)
    assert found.std() > 0.1  # not all but constant


@pytest.mark.weights
def test_photographs_come_back():
    """ONEWORD_VQGAN names a published file, ONEWORD_PHOTOS a folder of three photographs."""
    model = taming.load(Path(os.environ["ONEWORD_VQGAN"]))
    pixels = read_folder(Path(os.environ["ONEWORD_PHOTOS"]), resolution=256).pixels
    assert len(pixels) >= 3
    with torch.no_grad():
        back = model.decode(model.encode(pixels).latents).sample.clamp(-1, 1)
    errors = (back - pixels).square().flatten(1).mean(1)
    assert bool((10 * torch.log10(4 / errors) > 17).all()), errors  # dB; f16 has some 20


# --- files


def test_a_file_of_training_is_read_safely(small, tmp_path):
    path = tmp_path / "last.ckpt"
    whole = {"state_dict": small, "epoch": 3, "optimizer_states": [{"state": {}}]}
    single_file_names.save_as_lightning(whole, path)
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(path, weights_only=True)  # noqa: TID251
    model = taming.load(path)
    for name, value in model.state_dict().items():
        theirs = small[taming.taming_name(name, 2)]
        assert torch.equal(value, theirs.reshape(value.shape)), name
    assert model.dtype == torch.float32


def test_half_precision_and_safetensors_are_read_as_well(small, tmp_path):
    save_file({n: t.half() for n, t in small.items()}, tmp_path / "vqgan.safetensors")
    assert taming.load(tmp_path / "vqgan.safetensors").dtype == torch.float32


class Hit:
    def __reduce__(self):
        return (print, ("a file has run code",))


def test_a_file_that_would_run_code_is_refused(small, tmp_path, capsys):
    torch.save({"state_dict": small, "callbacks": Hit()}, tmp_path / "last.ckpt")
    with pytest.raises(ModelError, match="must be a complete VQModel of taming-transformers"):
        taming.load(tmp_path / "last.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Hit()))
    with pytest.raises(ModelError, match="must be a complete VQModel"):
        taming.load(tmp_path / "raw.ckpt")
    assert "a file has run code" not in capsys.readouterr().out


def without(tensors, *names):
    return {name: value for name, value in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (  # GumbelVQ
            lambda t: (
                without(t, "quantize.embedding.weight")
                | {
                    "quantize.embed.weight": torch.zeros(24, 6),
                    "quantize.proj.bias": torch.zeros(24),
                }
            ),
            r"lacks the tensor quantize\.embedding\.weight, and contains decoder\.conv_in\.bias",
        ),
        (  # a transformer with its VQGAN
            lambda t: {f"first_stage_model.{n}": v for n, v in t.items()},
            r"lacks the tensor quantize\.embedding\.weight, and contains first_stage_model\.",
        ),
        (
            lambda t: without(t, "encoder.down.1.attn.0.k.bias", "decoder.norm_out.bias"),
            r"lacks the tensors decoder\.norm_out\.bias, encoder\.down\.1\.attn\.0\.k\.bias$",
        ),
        (
            lambda t: t | {"transformer.head.weight": torch.zeros(2)},
            r"contains tensors of something else, transformer\.head\.weight$",
        ),
        (
            lambda t: t | {"quant_conv.weight": torch.zeros(6, 13, 1, 1)},
            r"size mismatch for quant_conv\.weight",
        ),
        (lambda t: {"epoch": torch.zeros(1)}, r"lacks the tensor quantize\.embedding\.weight"),
    ],
)
def test_another_layout_is_refused_with_its_names(small, tmp_path, change, message):
    save_file(change(small), tmp_path / "vqgan.safetensors")
    with pytest.raises(ModelError, match=message):
        taming.load(tmp_path / "vqgan.safetensors")


@pytest.mark.parametrize("name", ["none.ckpt", "vqgan.bin"])
def test_what_is_no_checkpoint_is_refused(tmp_path, name):
    (tmp_path / "vqgan.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"must be a \.ckpt or \.safetensors file"):
        taming.load(tmp_path / name)


# --- the configuration that came with it


CONFIG = {
    "model": {
        "base_learning_rate": 4.5e-6,
        "target": "taming.models.vqgan.VQModel",
        "params": {
            "embed_dim": 6,
            "n_embed": 24,
            "ddconfig": {
                "double_z": False, "z_channels": 12, "resolution": 16, "in_channels": 3,
                "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
                "attn_resolutions": [8], "dropout": 0.0,
            },
            "lossconfig": {"target": "taming.modules.losses.vqperceptual.DummyLoss"},
        },
    }
}  # fmt: skip


def compared(small, folder, config):
    save_file(small, folder / "vqgan.safetensors")
    (folder / "model.yaml").write_text(config if isinstance(config, str) else yaml.dump(config))
    return taming.load(folder / "vqgan.safetensors", folder / "model.yaml")


def changed(place, value):
    """The configuration with one value changed."""
    found = yaml.safe_load(yaml.dump(CONFIG))
    *way, last = place.split(".")
    inner = found["model"]
    for name in way:
        inner = inner[name]
    inner[last] = value
    return found


def test_a_configuration_of_the_same_model_is_taken(small, tmp_path):
    assert compared(small, tmp_path, CONFIG).config.vq_embed_dim == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("params.n_embed", 1024), "got n_embed 1024 in .* and 24 in the checkpoint"),
        (changed("params.ddconfig.ch_mult", [1, 4]), r"ch times ch_mult \[32, 128\]"),
        (changed("params.ddconfig.attn_resolutions", [16]), r"attn_resolutions \[16\]"),
        (changed("params.ddconfig.double_z", True), "double_z True"),
        (changed("target", "taming.models.vqgan.GumbelVQ"), r"got taming\.models\.vqgan\.GumbelVQ"),
        (changed("params.n_embed", "many"), r"'n_embed'\] must be a whole number"),
        ("model: [", "must be the model.yaml"),
        ("!!python/object/apply:print ['a file has run code']", "must be the model.yaml"),
        ("just text", "it must be an object"),
    ],
)
def test_a_configuration_of_another_model_is_refused(small, tmp_path, config, message, capsys):
    with pytest.raises(ModelError, match=message):
        compared(small, tmp_path, config)
    assert "run code" not in capsys.readouterr().out


def test_the_reader_knows_lightnings_class_only_while_it_reads():
    before = torch.serialization.get_safe_globals()
    with single_file.reading_lightnings():
        assert len(torch.serialization.get_safe_globals()) == len(before) + 1
    assert {*torch.serialization.get_safe_globals()} == {*before}
