"""Words whose vectors stand in the text encoders' output: learning, drawing, files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import OUTPUT_VECTORS, Concept, ConceptError
from oneword.concepts.formats.contents import FormatError
from oneword.concepts.mixing import average
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.tuning import TUNING
from oneword.errors import ConfigError
from oneword.generation.generate import generate
from oneword.models.loading import load_backbone
from oneword.prompts import TEMPLATES
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.vocabulary.inject import initial_outputs, injected
from oneword.vocabulary.output_vectors import OutputsError
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)
PLACES = {
    "stable_diffusion": {"clip.last_hidden_state"},
    "ldm": {"bert.last_hidden_state"},
    "sdxl": {"clip_l.hidden_states.1", "clip_g.hidden_states.2"},
    "sd3": {"clip_l.hidden_states.2", "clip_g.hidden_states.2", "t5xxl.last_hidden_state"},
    "flux": {"t5xxl.last_hidden_state"},
    "pixart": {"t5xxl.last_hidden_state"},
    "chroma": {"t5xxl.last_hidden_state"},
    "deepfloyd_if": {"t5xxl.last_hidden_state"},
    "hunyuan_dit": {"chinese_roberta.last_hidden_state", "mt5xl.last_hidden_state"},
    "kandinsky3": {"flan_ul2.last_hidden_state"},
    "cosmos2": {"t5xxl.last_hidden_state"},
    "prx": {"t5gemma.last_hidden_state"},
    "prx_pixel": {"qwen3vl.last_hidden_state"},
    "dreamlite": {"qwen3vl.hidden_states.2"},
    "nucleus_moe": {"qwen3vl.hidden_states.2"},
    "kandinsky5": {"qwen25.hidden_states.2"},
    "ernie_image": {"ministral3.hidden_states.2"},
    "longcat_image": {"qwen25.hidden_states.2"},
    "hunyuan_image": {"qwen25.hidden_states.1"},
    "qwen_image21": {"qwen3vl.hidden_states.2"},
    "sana": {"gemma.last_hidden_state"},
    "sana_sprint": {"gemma.last_hidden_state"},
    "lumina2": {"gemma.hidden_states.1"},
    "qwen_image": {"qwen25.hidden_states.2"},
    "z_image": {"qwen3.hidden_states.2"},
    "z_image_omni": {"qwen3.hidden_states.2"},
    # three layers side by side
    "flux2": {f"qwen3.hidden_states.{i}" for i in (9, 18, 27)},
    "flux2_dev": {f"mistral3.hidden_states.{i}" for i in (10, 20, 30)},
}


@pytest.fixture(scope="module", params=PLACES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, family):
    folder = tiny.save(tiny.make(family), tmp_path_factory.mktemp("outputs") / family)
    return load_backbone(ModelConfig(model=str(folder), device="cpu"))


def job(**fields):
    settings = {
        "placeholder_token": "<Cat-Toy>",
        "initializer_token": "cat",
        "vectors_at": "output",
        "max_train_steps": 6,
        "train_batch_size": 2,
        "evaluation_steps": 3,
        "num_evaluation_samples": 4,
        "keep": "last",
    }
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return Job(name="a", pictures=pictures, config=InversionConfig(**settings | fields))


def word(rows, token="<Cat-Toy>"):
    return Concept(
        placeholder_token=token,
        rows=rows,
        kind=OUTPUT_VECTORS,
        provenance={"initializer_token": "cat"},
    )


def test_the_places_that_a_model_listens_to_are_found(backbone, family):
    assert initial_outputs(backbone, "cat", 1, ["a {}"]).keys() == PLACES[family]


def test_what_the_encoder_says_itself_changes_nothing(backbone):
    """Vectors taken from one sentence, put back into it, give the initialiser's conditioning."""
    own = word(initial_outputs(backbone, "cat", 1, ["a photo of a {}"]))
    prompts = ["a photo of a <Cat-Toy>", "a red dog"]
    with injected(backbone, [own]):
        once = backbone.encode_prompt(prompts)
        again = backbone.encode_prompt(prompts[::-1])  # recalled, in another order
    plain = backbone.encode_prompt(["a photo of a cat", "a red dog"])
    for found in (once, again[[1, 0]]):
        states = found.encoder_hidden_states
        assert torch.allclose(states, plain.encoder_hidden_states, atol=1e-5)
        if plain.pooled is not None:
            assert torch.allclose(found.pooled, plain.pooled, atol=1e-5)
    assert all("forward" not in v.text_encoder.__dict__ for v in backbone.vocabularies.values())


def test_only_the_words_own_places_change_and_the_gradient_is_theirs(backbone):
    start = initial_outputs(backbone, "cat", 2, ["a {}"])
    rows = {key: (value + 1).requires_grad_() for key, value in start.items()}
    with injected(backbone, [word(rows)]):
        found = backbone.encode_prompt(["a <Cat-Toy> on the moon"]).encoder_hidden_states
    plain = backbone.encode_prompt(["a cat cat on the moon"]).encoder_hidden_states
    changed = (found - plain).abs().amax(-1)[0] > 1e-4
    # CLIP's or BERT's, then T5's
    assert int(changed.sum()) == 2 * (2 if backbone.family in ("sd3", "hunyuan_dit") else 1)
    gradients = torch.autograd.grad(found.sum(), list(rows.values()))
    assert all(torch.equal(g, torch.ones_like(g)) for g in gradients)


def test_a_word_is_learned_and_the_encoder_reads_each_prompt_once(backbone):
    calls = []
    encoder = next(iter(backbone.vocabularies.values())).text_encoder
    handle = next(encoder.children()).register_forward_hook(
        lambda module, args, output: calls.append(torch.is_grad_enabled())
    )
    try:
        result = invert(backbone, job(num_vectors=2, prompt_templates="paper27dot"))
    finally:
        handle.remove()
    assert result.status == "finished"
    assert result.losses[-1][1] < result.losses[0][1]
    assert result.concept.kind == OUTPUT_VECTORS
    assert result.concept.provenance["portable"] is False
    filled = [template.format("cat cat") for template in TEMPLATES["paper27dot"]]
    # which reads prompts of other lengths apart
    parts = len(backbone._alike(filled)) if backbone.family == "kandinsky5" else 1
    assert sum(calls) <= parts  # the initial vectors alone are asked for with gradients
    # at most one call for each step or scoring with new prompts
    assert len(calls) <= parts * (1 + 6 + 2)


def test_a_file_brings_the_word_back_and_it_draws(backbone, tmp_path):
    start = initial_outputs(backbone, "cat", 1, ["a {}"])
    concept = word({key: value + 0.5 for key, value in start.items()})
    formats.save_concept(concept, tmp_path / "word.safetensors")
    loaded = formats.load_concept(tmp_path / "word.safetensors")
    assert (loaded.kind, loaded.sha256()) == (concept.kind, concept.sha256())
    drawn, same = (
        generate(backbone, ["a <Cat-Toy>"], [0], concepts=[c], sampling=FEW).pixels
        for c in (concept, loaded)
    )
    assert torch.equal(drawn, same)


def test_the_vectors_reach_the_denoiser_that_draws(backbone, family):
    start = initial_outputs(backbone, "cat", 1, ["a {}"])
    prompts, seen = ["a <Cat-Toy>"], []
    # Z-Image and Krea 2 count guidance from 0, the first takes prompts of several lengths as a list
    alone = replace(FEW, guidance_scale=0.0 if backbone.family in ("z_image", "krea2") else 1.0)

    def look(module, args, kwargs):
        name = "text_bth" if backbone.family == "ernie_image" else "encoder_hidden_states"
        if "cap_feats" in kwargs:  # Omni's, each in a list of its own
            states = torch.stack([only for (only,) in kwargs["cap_feats"]])
        else:
            states = kwargs[name] if len(args) < 3 else torch.stack(args[2])
        parts = [states, kwargs.get("encoder_hidden_states_t5", states[:, :0])]  # Hunyuan-DiT's
        widest = max(part.shape[2] for part in parts)
        parts = [F.pad(part, (0, widest - part.shape[2])) for part in parts]
        seen.append(torch.cat(parts, dim=1)[-1:])

    hook = backbone.denoiser.register_forward_pre_hook(look, with_kwargs=True)
    for own in (word({key: value + 0.5 for key, value in start.items()}), word(start)):
        seen.clear()
        generate(backbone, prompts, [0], concepts=[own], sampling=alone)
        with injected(backbone, [own]):
            told = backbone.encode_prompt(prompts).encoder_hidden_states
        assert len(seen) >= 2
        assert all(torch.allclose(states, told, atol=1e-5) for states in seen)
        for key, vector in own.rows.items():  # each at one token, in the encoder's own columns
            places = told.unfold(2, vector.shape[1], 1).sub(vector[0]).abs().amax(-1) < 1e-5
            assert int(places.sum()) == 1, key
    hook.remove()


def test_an_encoder_that_is_read_for_its_pooled_output_alone_has_nothing_to_learn(tmp_path):
    folder = tiny.save(tiny.make("flux"), tmp_path / "flux")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    with pytest.raises(JobError, match=r"Cannot train clip_l because .*; name one of t5xxl"):
        invert(backbone, job(train_encoders=("clip_l",)))


@pytest.fixture(scope="module")
def concept(tiny_sd):
    return word(initial_outputs(tiny_sd, "cat", 1, ["a {}"]))


@pytest.mark.parametrize("layout", sorted(set(formats.WRITERS) - {"oneword"}))
def test_no_other_tools_file_can_hold_it(concept, layout, tmp_path):
    with pytest.raises(FormatError, match=r"no other tool reads .*; use the layout oneword"):
        formats.save_concept(concept, tmp_path / "word.bin", layout)
    assert not any(tmp_path.iterdir())


def test_stock_tools_do_not_take_the_native_file_for_a_word(concept, tmp_path):
    from safetensors.torch import load_file

    (path,) = formats.save_concept(concept, tmp_path / "word.safetensors")
    assert list(load_file(path)) == ["output-vectors.<cat-toy>.clip.last_hidden_state"]


def test_it_is_not_mixed_with_rows(concept):
    with pytest.raises(ConceptError, match=r"of kind output-vectors .* plain embeddings"):
        average([concept, concept], "<mean>")


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        *(({"setup": setup}, f"form {setup}") for setup in (
            "progressive", "per-image", "captions-short", "captions-long", "xti", "neti",
            "dreamartist",
        )),
        *(({"setup": setup}, f"setup {setup}") for setup in TUNING),
        ({"setup": "cross-init"}, "cross_initialization"),
        ({"norm_pull": 0.1}, "norm_pull"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_output_vectors_are_plain_ones(fields, given):
    with pytest.raises(ConfigError, match=f"vectors_at 'output' with .*{given}; leave one"):
        InversionConfig(vectors_at="output", **fields).resolved("stable-diffusion")


@pytest.mark.parametrize("kept", ["last", "average"])
def test_settings_of_plain_rows_go_with_output_vectors(tiny_sd, kept):
    far, near = (
        invert(tiny_sd, job(keep=kept, setup=setup, regularization_weight=weight)).concept
        for setup, weight in (("two-words", 0.0), ("regularized", 1e3))
    )
    start = initial_outputs(tiny_sd, "cat", 2, TEMPLATES["release27"][:8])
    (key,) = start
    moved = [(c.rows[key] - start[key][: c.num_vectors]).norm() for c in (far, near)]
    assert (far.num_vectors, near.num_vectors) == (2, 1)
    assert moved[0] > moved[1] > 0


def test_a_word_that_differs_by_layer_stands_beside_one_in_the_output(tiny_sd, concept):
    layered = invert(tiny_sd, job(vectors_at="input", setup="xti", placeholder_token="<x>")).concept
    prompts, t = ["a <x> <Cat-Toy>"], torch.tensor([500])
    with injected(tiny_sd, [layered, concept]):
        states = tiny_sd.encode_prompt(prompts, t).encoder_hidden_states
        recalled = tiny_sd.encode_prompt(prompts, t).encoder_hidden_states
    with injected(tiny_sd, [layered]):
        plain = tiny_sd.encode_prompt(["a <x> cat"], t).encoder_hidden_states
    assert len(states) == len(plain) == tiny_sd.num_cross_attentions
    for layer, again, alone in zip(states, recalled, plain, strict=True):
        expected = alone.clone()
        expected[0, 3] = concept.rows["clip.last_hidden_state"][0]
        assert torch.allclose(layer, expected, atol=1e-5)
        assert torch.allclose(again, expected, atol=1e-5)


def test_another_models_word_is_refused(tiny_sd, concept):
    other = word({"clip_l.last_hidden_state": torch.ones(1, 768)})
    with (
        pytest.raises(PlaceholderError, match="use the model that it was learned on"),
        injected(tiny_sd, [other]),
    ):
        pass
    wide = word({"clip.last_hidden_state": torch.ones(1, 48)})
    with injected(tiny_sd, [wide]), pytest.raises(OutputsError, match="width 48"):
        tiny_sd.encode_prompt(["a <Cat-Toy>"])


def test_both_kinds_stand_in_one_prompt(tiny_sd, concept):
    rows = Concept(
        placeholder_token="<row>", rows={"clip": tiny_sd.vocabularies["clip"].rows_of("red")}
    )
    with injected(tiny_sd, [rows, concept]):
        found = tiny_sd.encode_prompt(["a <row> <Cat-Toy>"]).encoder_hidden_states
    plain = tiny_sd.encode_prompt(["a red cat"]).encoder_hidden_states
    expected = plain.clone()
    expected[0, 3] = concept.rows["clip.last_hidden_state"][0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_command_line_learns_one_and_refuses_to_convert_it(make, tmp_path, capsys):
    from oneword.cli.main import main

    config = make()
    run = tmp_path / "run"
    words = ["train", "--model", config.model.model, "--train-data-dir", str(config.train_data_dir),
             "--output-dir", str(run), "--placeholder-token", "<toy>", "--initializer-token", "cat",
             "--vectors-at", "output", "--max-train-steps", "4", "--validation-steps", "0",
             "--device", "cpu"]  # fmt: skip
    assert main(words) == 0
    assert json.loads((run / "config.json").read_text())["config"]["inversion"]["vectors_at"] == (
        "output"
    )
    assert formats.load_concept(run).kind == OUTPUT_VECTORS
    assert main(["concept", "convert", str(run), "--to", "a1111",
                 "--output-dir", str(tmp_path / "a1111")]) == 2  # fmt: skip
    assert "no other tool reads" in capsys.readouterr().err


@pytest.mark.parametrize("initializer", [[], ["--initializer-token", "cat"]])
def test_a_model_that_reads_no_output_token_by_token_is_refused_before_a_file(
    photos, tmp_path, capsys, initializer
):
    """Kolors takes the states of its language model in an order of its own."""
    from oneword.cli.main import main

    kolors = tiny.save(tiny.make("kolors"), tmp_path / "kolors")
    words = ["train", "--model", str(kolors), "--train-data-dir", str(photos),
             "--output-dir", str(tmp_path / "run"), "--placeholder-token", "<toy>",
             *initializer, "--vectors-at", "output", "--device", "cpu", "--dry-run"]  # fmt: skip
    assert main(words) == 2
    assert "token by token; pass --vectors-at input." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
