"""Files for other tools, against the rules of each tool's loader, stated again here.

Each function says which source it restates, and of which version; ``benchmarks/clients.py`` calls
the loaders themselves, from checkouts.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file

import layouts
from oneword._files import hold
from oneword.cli import concept as cli_concept
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import FormatError


ROWS = {
    "clip_l": layouts.R, "clip_h": layouts.H, "clip_g": layouts.G, "t5xxl": layouts.T,
    "gemma": layouts.rows(2, 2304, 5), "llama": layouts.rows(2, 4096, 6),
    "qwen3_4b": layouts.rows(2, 2560, 7),
}  # fmt: skip


def word(*encoders, token="<My-Cat>"):
    return Concept(
        placeholder_token=token,
        rows={name: ROWS[name] for name in encoders},
        provenance={"steps": 7, "base_model": "some/model"},
    )


# --- the loaders


class _ForbiddenError(Exception):
    pass


class _Unpickler(pickle.Unpickler):  # noqa: S301  (what it stands for is what is tested)
    """A1111's RestrictedUnpickler: modules/safe.py, stable-diffusion-webui 0593384."""

    def persistent_load(self, pid):
        assert pid[0] == "storage"
        return torch.storage.TypedStorage(_internal=True)

    def find_class(self, module, name):
        storages = ["Float", "Half", "Int", "Long", "Double", "Byte", "BFloat16"]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return getattr(torch._utils, name)
        if module == "torch" and name in {f"{kind}Storage" for kind in storages} | {"float32"}:
            return getattr(torch, name)
        if (module, name) == ("torch.nn.modules.container", "ParameterDict"):
            return torch.nn.ParameterDict
        raise _ForbiddenError(f"{module}.{name}")


def a1111(path):
    """modules/safe.py ``check_pt``, then ``create_embedding_from_data`` of version 1.10."""
    if path.suffix == ".safetensors":
        data = load_file(path)
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    assert re.match(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$", name), name
        except zipfile.BadZipFile:
            with path.open("rb") as file:
                for _ in range(5):
                    _Unpickler(file).load()
        data = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    return _one_word(data)


def _one_word(data):
    if "string_to_param" in data:
        assert len(data["string_to_param"]) == 1
        return next(iter(data["string_to_param"].values()))
    if "clip_g" in data and "clip_l" in data:
        return {name: value.float() for name, value in data.items()}
    assert len(data) == 1, "embedding file has multiple terms in it"
    rows = next(iter(data.values()))
    return rows[None] if rows.ndim == 1 else rows


def forge(path):
    """``load_from_file`` of backend/text_processing/textual_inversion.py, 42ef31f."""
    return _one_word(load_file(path))


def comfyui(path, key, size):
    """``load_embed`` and ``SDTokenizer`` of comfy/sd1_clip.py, comfyanonymous/ComfyUI 00728eb."""
    data = load_file(path)
    found = data[key] if key in data else next(iter(data.values()))
    # set_up_textual_embeddings leaves out what is not as wide as the encoder
    return found.reshape(-1, found.shape[-1]) if found.shape[-1] == size else None


def kohya(path):
    """``load_weights`` of train_textual_inversion.py, kohya-ss/sd-scripts 04ed9ed."""
    rows = next(iter(load_file(path).values()))
    return rows[None] if rows.ndim == 1 else rows


def kohya_xl(path):
    """``load_weights`` of sdxl_train_textual_inversion.py, the same."""
    data = load_file(path)
    return [data.get("clip_l"), data.get("clip_g")]


def invokeai(path):
    """configs/textual_inversion.py and backend/textual_inversion.py, invoke-ai/InvokeAI 9faffe9."""
    data = load_file(path)
    if "emb_params" in data:
        dim, rows = data["emb_params"].shape[-1], [data["emb_params"]]
    elif "clip_g" in data:
        dim, rows = data["clip_g"].shape[-1], [data["clip_l"], data["clip_g"]]
    else:  # the first dimension, whatever it is
        dim, rows = next(iter(data.values())).shape[0], [next(iter(data.values()))]
    return {768: "SD1", 1024: "SD2", 1280: "SDXL"}[dim], rows


def onetrainer(path, *keys):
    """EmbeddingLoaderMixin and the setups, Nerogar/OneTrainer 35805c5: ``.get`` of its keys."""
    data = load_file(path)
    return [data.get(key) for key in keys]


def authors(path):
    """``EmbeddingManager.load``, rinongal/textual_inversion 424192d, under torch 2.6 and later."""
    data = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    return {
        int(token): data["string_to_param"][name] for name, token in data["string_to_token"].items()
    }


# --- what is written


def saved(tmp_path, layout, *encoders, token="<My-Cat>"):
    path = tmp_path / f"my-cat{formats.WRITERS[layout][0]}"
    return formats.save_concept(word(*encoders, token=token), path, layout)[0]


def same(a, b):
    return torch.equal(a, b) and a.dtype == torch.float32


@pytest.mark.parametrize("encoder", ["clip_l", "clip_h"])
def test_a_word_for_one_encoder_is_loaded_by_every_tool(tmp_path, encoder):
    rows = ROWS[encoder]
    assert same(a1111(saved(tmp_path, "a1111", encoder)), rows)
    assert same(forge(saved(tmp_path, "forge", encoder)), rows)
    assert same(comfyui(saved(tmp_path, "comfyui", encoder), encoder, rows.shape[1]), rows)
    assert same(kohya(saved(tmp_path, "kohya", encoder)), rows)
    base, found = invokeai(saved(tmp_path, "invokeai", encoder))
    assert base == {"clip_l": "SD1", "clip_h": "SD2"}[encoder]
    assert same(found[0], rows)
    assert same(onetrainer(saved(tmp_path, "onetrainer", encoder), "emp_params")[0], rows)
    assert same(authors(saved(tmp_path, "authors", encoder))[265], rows)


def test_a_word_for_xl_is_loaded_whole(tmp_path):
    xl = ("clip_l", "clip_g")
    for found in (a1111(saved(tmp_path, "a1111", *xl)), forge(saved(tmp_path, "forge", *xl))):
        assert found.keys() == {*xl}
        assert all(same(found[name], ROWS[name]) for name in xl)
    path = saved(tmp_path, "comfyui", *xl)
    assert same(comfyui(path, "clip_l", 768), ROWS["clip_l"])
    assert same(comfyui(path, "clip_g", 1280), ROWS["clip_g"])
    assert all(map(same, kohya_xl(saved(tmp_path, "kohya", *xl)), [ROWS[n] for n in xl]))
    base, found = invokeai(saved(tmp_path, "invokeai", *xl))
    assert base == "SDXL"
    assert all(map(same, found, [ROWS[n] for n in xl]))
    assert all(
        map(same, onetrainer(saved(tmp_path, "onetrainer", *xl), *xl), [ROWS[n] for n in xl])
    )


def test_words_of_other_models_go_where_they_fit(tmp_path):
    flux = saved(tmp_path, "comfyui", "clip_l", "t5xxl")
    assert same(comfyui(flux, "t5xxl", 4096), ROWS["t5xxl"])
    assert same(comfyui(flux, "clip_l", 768), ROWS["clip_l"])
    for encoder in ("t5xxl", "qwen3_4b", "gemma"):
        rows = ROWS[encoder]
        assert same(comfyui(saved(tmp_path, "comfyui", encoder), encoder, rows.shape[1]), rows)
    sd3 = ("clip_l", "clip_g", "t5xxl")
    found = onetrainer(saved(tmp_path, "onetrainer", *sd3), "clip_l", "clip_g", "t5")
    assert all(map(same, found, [ROWS[n] for n in sd3]))
    for encoder, key in (("t5xxl", "t5"), ("gemma", "gemma"), ("llama", "llama")):
        assert same(onetrainer(saved(tmp_path, "onetrainer", encoder), key)[0], ROWS[encoder])


@pytest.mark.parametrize(
    ("layout", "encoders"),
    [
        ("a1111", ("clip_l", "t5xxl")), ("a1111", ("t5xxl",)),
        ("a1111", ("clip_l", "clip_g", "t5xxl")),
        ("forge", ("clip_l", "t5xxl")), ("forge", ("t5xxl",)),
        ("kohya", ("clip_l", "t5xxl")), ("kohya", ("qwen3_4b",)),
        ("invokeai", ("clip_l", "t5xxl")), ("invokeai", ("clip_g",)), ("invokeai", ("t5xxl",)),
        ("onetrainer", ("qwen3_4b",)), ("onetrainer", ("clip_l", "qwen3_4b")),
        ("authors", ("clip_l", "clip_g")),
    ],
)  # fmt: skip
def test_half_a_word_is_not_written(layout, encoders, tmp_path):
    with pytest.raises(FormatError, match=r"'<My-Cat>'"):
        saved(tmp_path, layout, *encoders)
    assert list(tmp_path.iterdir()) == []


def test_a_pt_of_ours_is_of_the_old_container(tmp_path):
    for layout in ("a1111", "authors"):
        assert not zipfile.is_zipfile(saved(tmp_path, layout, "clip_l"))
    # as newer versions of torch write it, A1111 does not take it
    buffer = io.BytesIO()
    torch.save({"x": torch.ones(1)}, buffer)
    (tmp_path / "new.pt").write_bytes(buffer.getvalue())
    with pytest.raises(AssertionError, match=r"\.format_version|byteorder|serialization_id"):
        a1111(tmp_path / "new.pt")


def test_words_of_the_papers_file_are_typed_as_signs(tmp_path):
    words = [word("clip_l"), word("clip_l", token="<b>"), word("clip_l", token="#")]
    formats.save_concept(words, tmp_path / "x.pt", "authors")
    # "*", "@" and "#" in CLIP's vocabulary
    assert authors(tmp_path / "x.pt").keys() == {265, 287, 258}
    assert {c.placeholder_token for c in formats.load_all(tmp_path / "x.pt")} == {
        "<My-Cat>", "<b>", "#",
    }  # fmt: skip
    # "*" in BERT's, which the paper's own model reads with
    assert authors(saved(tmp_path, "authors", "clip_g")).keys() == {1008}


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("comfyui", "embedding:my-cat"), ("a1111", "my-cat"), ("forge", "my-cat"),
        ("kohya", "my-cat"), ("invokeai", "<my-cat>"), ("onetrainer", "my-cat"),
        ("diffusers", "<my-cat>"), ("authors", "*"),
    ],
)  # fmt: skip
def test_converting_says_what_to_type(layout, text, tmp_path, capsys):
    formats.save_concept(word("clip_l", token="<my-cat>"), tmp_path / "x.safetensors")
    arguments = ["concept", "convert", str(tmp_path / "x.safetensors"), "--to", layout]
    assert main([*arguments, "--output-dir", str(tmp_path / "o")]) == 0
    assert f"in {formats.TOOLS[layout]}, type {text}\n" in capsys.readouterr().out


def test_what_cannot_be_written_is_named_and_the_others_are_written(tmp_path, capsys):
    formats.save_concept(
        [word("t5xxl", token="<a>"), word("clip_l", token="<b>")], tmp_path / "x.safetensors"
    )
    arguments = ["concept", "convert", str(tmp_path / "x.safetensors"), "--to", "forge"]
    assert main([*arguments, "--output-dir", str(tmp_path / "o")]) == 2
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["b.safetensors"]
    assert "for Forge because it takes a word for one CLIP encoder" in capsys.readouterr().err


# --- nothing is written over


@pytest.mark.parametrize(
    ("verb", "lost"),
    [
        (["convert", "--output-dir", "o"], "o/My-Cat_2.safetensors"),
        (["merge", "--output", "m.safetensors"], "m_2.safetensors"),
        (["rename", "--placeholder-token", "<b>", "--output", "m.safetensors"], "m_2.safetensors"),
        (["extract", "--output-dir", "o"], "o/My-Cat_2.safetensors"),
    ],
)
def test_the_other_half_of_a_pair_writes_over_nothing(verb, lost, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    formats.save_concept(word("clip_l", "clip_g"), "x.safetensors")
    (tmp_path / "o").mkdir()
    (tmp_path / lost).write_text("precious")
    assert main(["concept", verb[0], "x.safetensors", "--to", "diffusers", *verb[1:]]) == 2
    assert "must not exist yet" in capsys.readouterr().err
    assert (tmp_path / lost).read_text() == "precious"
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_two_words_of_one_call_do_not_write_over_one_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formats.save_concept(word("clip_l", token="<cat_2>"), "a.safetensors")
    formats.save_concept(word("clip_l", "clip_g", token="<cat>"), "b.safetensors")
    assert main(["concept", "convert", "a.safetensors", "b.safetensors", "--to", "diffusers",
                 "--output-dir", "o"]) == 0  # fmt: skip
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "cat_2.safetensors", "cat-2.safetensors", "cat-2_2.safetensors",
    }  # fmt: skip
    assert formats.read("o/cat_2.safetensors").concepts[0].rows.keys() == {"clip_l"}
    assert formats.read("o/cat-2.safetensors").concepts[0].rows.keys() == {"clip_l", "clip_g"}


@pytest.mark.parametrize("layout", ["diffusers", "a1111"])
def test_a_command_that_was_killed_between_its_files_goes_on(layout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encoders = ("clip_l", "clip_g") if layout == "diffusers" else ("clip_l",)
    for name in ("one", "two"):
        formats.save_concept(word(*encoders, token=f"<{name}>"), f"{name}.safetensors")
    command = ["concept", "convert", "one.safetensors", "two.safetensors", "--to", layout,
               "--output-dir", "o"]  # fmt: skip
    assert main(command) == 0
    made = sorted((tmp_path / "o").iterdir())
    for path in made[1:]:
        path.unlink()
    assert main(command) == 0  # the first is there, and holds the same
    assert sorted((tmp_path / "o").iterdir()) == made
    assert main(command) == 2
    assert "must not exist yet" in capsys.readouterr().err
    made[-1].unlink()
    made[0].write_bytes(made[0].read_bytes()[:-1])
    assert main(command) == 2  # it holds something else
    assert not made[-1].exists()


def test_a_second_command_waits_and_then_finds_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_concept, "_WAIT_S", 0.1)
    formats.save_concept(word("clip_l"), "x.safetensors")
    command = ["concept", "convert", "x.safetensors", "--to", "a1111", "--output-dir", "o"]
    with hold(tmp_path / "o"):
        assert main(command) == 2
    assert "another process is working there" in capsys.readouterr().err
    assert main(command) == 0
    assert [p.suffix for p in (tmp_path / "o").iterdir()] == [".pt"]
