"""What sets Kolors apart: a tokenizer written in Python, the last token pooled, 1100 timesteps."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from transformers import ByT5Tokenizer

from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.formats.names import family_of
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.loading import load_backbone
from oneword.models.probe import try_road
from oneword.vocabulary.inject import initial_outputs, injected
from oneword.vocabulary.tokenizer import with_words
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=3, height=64, width=64)
PROMPTS = (
    "a photo of a {} on the moon",
    "{} on the moon",
    "a {}, dirty",
    "a {}",
    "{}",
    "a photo\n{}. the moon",
    "a red  {} on  the moon ",
    "({}) a 'cat' and a {}!",
    "{} {}",
)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["kolors"]), device="cpu"))


def word(backbone, text="red cat", token="<Cat-Toy>"):
    rows = {n: v.rows_of(text) for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_word_is_found_though_the_tokenizer_does_not_say_where(backbone, prompt):
    """Its rows take the places of the tokens that words there would have, and no other changes."""
    tokens, vocabulary = backbone.pipeline.tokenizer, backbone.vocabularies["chatglm3"]
    own = vocabulary.ids("red cat")
    assert len(own) == 2
    spelled = prompt.replace("\n{", "\n {").replace("({", "( {")  # a row is a word with its space
    plain = tokens(spelled.format("red cat", "red cat")).input_ids
    with injected(backbone, [word(backbone)]):
        inside = backbone.pipeline.tokenizer
        first = inside._first_row
        found = inside(prompt.format("<Cat-Toy>", "<Cat-Toy>")).input_ids
        assert [own[i - first] if i >= first else i for i in found] == plain
        assert sum(i >= first for i in found) == 2 * prompt.count("{}")
        assert inside.decode(found).count("<Cat-Toy>") == 2 * prompt.count("{}")
        bare = inside(prompt.format("<Cat-Toy>", "<Cat-Toy>"), add_special_tokens=False).input_ids
        assert bare == found[2:]


def test_a_placeholder_inside_another_word_is_none(backbone):
    pair = [word(backbone, "dog", "CAT"), word(backbone, "mug", "*")]
    prompts = ["a CATTLE, a CAT: a *", "a CAT_ and a dog"]
    tokens = backbone.pipeline.tokenizer
    spelled = ["a CATTLE, a dog: a mug", "a CAT_ and a dog"]
    plain = tokens(spelled, padding="max_length", max_length=40, truncation=True).input_ids
    with injected(backbone, pair, replace=True):
        inside = backbone.pipeline.tokenizer
        found = inside(prompts, padding="max_length", max_length=40, truncation=True)
        own = {inside._first_row: tokens("a dog").input_ids[-1]}
        own[inside._first_row + 1] = tokens("a mug").input_ids[-1]
    assert [[own.get(i, i) for i in ids] for ids in found.input_ids] == plain
    marks = tokens(spelled, padding="max_length", max_length=40)
    assert found.position_ids == marks.position_ids
    assert found.attention_mask == marks.attention_mask
    assert backbone.pipeline.tokenizer is tokens


def test_any_tokenizer_written_in_python_will_do():
    tokens = ByT5Tokenizer()
    toy = Concept(placeholder_token="<toy>", rows={"t5": torch.zeros(2, 4)})
    words = with_words(tokens, [toy], 400, torch.device("cpu"))
    found = words("a <toy>, red").input_ids
    plain = tokens("a, red").input_ids
    assert found == [plain[0], 400, 401, *plain[1:]]
    assert tokens("a <toy>").input_ids != words("a <toy>").input_ids


def test_prompts_are_the_stock_pipelines_and_the_last_token_is_pooled(folders, backbone):
    stock = DiffusionPipeline.from_pretrained(folders["kolors"])
    prompts = ["A photo of a Red cat, on the MOON", "a dog", "a dog in the cat"]
    with torch.no_grad():
        states, _, pooled, _ = stock.encode_prompt(prompts, do_classifier_free_guidance=False)
        found = backbone.encode_prompt(prompts)
    assert torch.allclose(found.encoder_hidden_states, states, atol=1e-6)
    assert torch.allclose(found.pooled, pooled, atol=1e-6)
    with injected(backbone, [word(backbone)]):
        one, two = backbone.encode_prompt(
            ["a <Cat-Toy> in the cat", "a <Cat-Toy> in the dog"]
        ).pooled
    assert not torch.allclose(one, two, atol=1e-3)


def test_a_gradient_returns_through_the_pooled_state_too(backbone):
    rows = {"chatglm3": backbone.vocabularies["chatglm3"].rows_of("cat").requires_grad_()}
    with injected(backbone, [Concept(placeholder_token="<w>", rows=rows)]):
        cond = backbone.encode_prompt(["a <w> on the moon"])
    for part in (cond.encoder_hidden_states, cond.pooled):
        (gradient,) = torch.autograd.grad(part.sum(), [rows["chatglm3"]], retain_graph=True)
        assert gradient.abs().max() > 0


def test_pictures_are_the_stock_pipelines(folders, backbone):
    """Whose Euler takes the same steps on the same schedule, which is longer than others'."""
    stock = DiffusionPipeline.from_pretrained(folders["kolors"])
    stock.set_progress_bar_config(disable=True)
    assert type(stock.scheduler).__name__ == "EulerDiscreteScheduler"
    noise = backbone._noise([torch.Generator().manual_seed(3)], (32, 32))
    theirs = stock(
        "a Red cat", num_inference_steps=3, height=64, width=64, latents=noise, output_type="latent"
    ).images
    ours = backbone.draw(["a Red cat"], [3], FEW)
    assert torch.allclose(ours, backbone.decode_latents(theirs), atol=1e-4)
    times = backbone.sample_t(torch.tensor([0.0, 0.5, 0.9999]), (8, 8))
    assert times.tolist() == [0, 550, 1099]


def test_a_word_may_differ_from_layer_to_layer(backbone):
    """The states of all layers pass through the UNet's projection of them side by side."""
    vocabulary, count = backbone.vocabularies["chatglm3"], backbone.num_cross_attentions
    cat, dog = vocabulary.rows_of("cat"), vocabulary.rows_of("dog")
    x, t = torch.zeros(1, 4, 8, 8), torch.tensor([500])

    def said(rows):
        tensors = {"chatglm3/layers": rows}
        concept = Concept(
            placeholder_token="<a>", rows={"chatglm3": cat}, kind="xti", tensors=tensors
        )
        with torch.no_grad(), injected(backbone, [concept]):
            cond = backbone.encode_prompt(["a <a>"], t)
            return backbone.predict(x, t, cond), backbone.draw(["a <a>"], [5], FEW)

    same, drawn = said(cat.expand(count, 1, -1))
    with torch.no_grad():
        plain = backbone.predict(x, t, backbone.encode_prompt(["a cat"]))
    assert torch.allclose(same, plain, atol=1e-5)
    assert torch.allclose(drawn, backbone.draw(["a cat"], [5], FEW), atol=1e-4)
    other, _ = said(torch.stack([cat] * (count - 1) + [dog]))
    assert not torch.allclose(other, plain, atol=1e-5)


def test_it_is_told_the_true_crop(backbone):
    seen = []

    def look(module, args, kwargs):
        seen.append(kwargs["added_cond_kwargs"]["time_ids"].tolist())

    handle = backbone.denoiser.register_forward_pre_hook(look, with_kwargs=True)
    x, t = torch.zeros(2, 4, 8, 8), torch.tensor([5, 900])
    with torch.no_grad():
        cond = backbone.encode_prompt(["a cat"] * 2)
        backbone.predict(x, t, cond, torch.tensor([[480, 640, 0, 16], [64, 32, 8, 0]]))
        backbone.predict(x, t, cond)
    handle.remove()
    assert seen[0] == [[480, 640, 0, 16, 16, 16], [64, 32, 8, 0, 16, 16]]
    assert seen[1] == [[16, 16, 0, 0, 16, 16]] * 2


def test_what_it_does_not_have_is_refused(folders, backbone):
    with pytest.raises(
        ModelError, match=r"clip_skip 1 with Kolors because it has no CLIP; leave it out"
    ):
        load_backbone(ModelConfig(model=str(folders["kolors"]), device="cpu", clip_skip=1))
    # ChatGLM says its states with the tokens first
    with pytest.raises(PlaceholderError, match=r"output vectors .* --vectors-at input"):
        initial_outputs(backbone, "cat", 1, ["a {}"])


def test_its_files_name_the_encoder(backbone, tmp_path):
    concept = word(backbone)
    formats.save_concept(concept, tmp_path / "cat-toy.safetensors", "comfyui")
    assert list(load_file(tmp_path / "cat-toy.safetensors")) == ["chatglm3"]
    read = formats.load_concept(tmp_path / "cat-toy.safetensors").named("<Cat-Toy>")
    plain = backbone.encode_prompt(["a red cat"])
    with injected(backbone, [read]):
        assert torch.allclose(
            backbone.encode_prompt(["a <Cat-Toy>"]).pooled, plain.pooled, atol=1e-5
        )
    assert family_of({"chatglm3_6b": 4096}) == "Kolors"


def test_the_generic_road_reaches_it(folders):
    found = try_road(DiffusionPipeline.from_pretrained(folders["kolors"]), "kolors")
    assert found.problems == ()
    assert found.reaches
