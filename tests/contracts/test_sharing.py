"""Cards and the Hub: written, uploaded and loaded back through a stand-in for its interface."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
from huggingface_hub import ModelCard, constants

from oneword.cli.main import main
from oneword.concepts import card, formats, hub
from oneword.concepts.card import SharingError
from oneword.concepts.concept import Concept
from oneword.concepts.hub import HubError
from oneword.images import read_image


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SCORES = {
    "judge": "a judge",
    "num_images_per_prompt": 4,
    "words": {"concept": "<cat>"},
    "scores": {
        "concept": {"image_similarity": 0.75, "text_similarity": None},
        "training pictures": {"image_similarity": 0.9, "text_similarity": 0.2},
    },
}


@pytest.fixture
def word(tmp_path):
    concept = Concept(
        placeholder_token="<cat>",
        rows={"clip_l": torch.randn(2, 768, generator=torch.Generator().manual_seed(0))},
        provenance={
            "base_model": "runwayml/stable-diffusion-v1-5",
            "family": "stable_diffusion",
            "steps": 90,
            "learning_rate": {"clip_l": {"absolute": 0.002, "relative": 0.14}},
            "config": {"initializer_token": "cat", "num_vectors": 2, "seed": 7},
        },
    )
    (tmp_path / "run").mkdir()
    formats.save_concept(concept, tmp_path / "run" / formats.LEARNED)
    return tmp_path / "run"


# --- the card


def test_a_card_has_the_hubs_fields_the_settings_and_the_scores(word):
    written = card.write_card(
        word, license="cc-by-4.0", preview=torch.zeros(4, 3, 16, 16),
        prompts=["a <cat>", "a <cat> on the moon"], scores=SCORES,
    )  # fmt: skip
    text = written.read_text()
    data = ModelCard(text).data
    assert data.license == "cc-by-4.0"
    assert data.base_model == "runwayml/stable-diffusion-v1-5"
    assert data.library_name == "diffusers"
    assert data.pipeline_tag == "text-to-image"
    assert data.instance_prompt == "a photo of a <cat>"
    assert {"textual_inversion", "stable-diffusion"} <= set(data.tags)
    for line in (
        "| initializer_token | cat |", "| seed | 7 |", "| learning rate, clip_l | 0.002 |",
        "| steps of the kept embeddings | 90 |", "| concept: `<cat>` | 0.750 | – |",
        "| training pictures | 0.900 | 0.200 |", "pipeline.load_textual_inversion('OWNER/NAME'",
    ):  # fmt: skip
        assert line in text
    assert f"]({card.PREVIEW})" in text
    assert read_image(word / card.PREVIEW).width > 2 * 128


def test_a_card_is_written_again_and_another_readme_is_not_lost(word):
    card.write_card(word)
    assert "license: unknown" in card.write_card(word).read_text()
    (word / "README.md").write_text("mine")
    with pytest.raises(SharingError, match="not a card by oneword; move the word"):
        card.write_card(word)
    assert (word / "README.md").read_text() == "mine"


def test_the_embedded_model_is_no_repository(tmp_path):
    concept = Concept(
        placeholder_token="S*",
        rows={"clip": torch.ones(1, 8)},
        provenance={
            "base_model": "microworld",
            "family": "microworld",
            "config": {"learnable_property": "style"},
        },
    )
    formats.save_concept(concept, tmp_path / "s.safetensors")
    text = card.write_card(tmp_path / "s.safetensors").read_text()
    assert "base_model" not in text
    assert "from diffusers" not in text
    assert "in the style of S*" in text


@pytest.mark.parametrize("text", ["{}", "[1]", '{"scores": {"a": {}}}', "no json"])
def test_other_files_are_no_scores(text, tmp_path):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(SharingError, match=r"must be the scores.json that `oneword evaluate`"):
        card.read_scores(tmp_path / "scores.json")


def test_a_licence_is_one_of_the_hubs_names(word):
    with pytest.raises(SharingError, match=r"Hub's name of a licence, such as cc-by-4\.0"):
        card.write_card(word, license="My own!")


# --- the Hub


def test_a_word_is_pushed_with_its_card_and_loaded_by_its_repository(server, token, word, capsys):
    card.write_card(word, preview=torch.zeros(1, 3, 16, 16), prompts=["a <cat>"])
    assert main(["concept", "push", str(word), "me/cat", "--message", "First"]) == 0
    assert f"Uploaded to {server.address}/me/cat" in capsys.readouterr().out
    files = server.repositories["me/cat"]
    assert set(files) == {"learned_embeds.safetensors", "README.md", "preview.png"}
    assert files["learned_embeds.safetensors"] == (word / formats.LEARNED).read_bytes()
    assert "--concepts me/cat" in files["README.md"].decode()
    assert "OWNER/NAME" in (word / "README.md").read_text()
    assert server.messages == ["First"]
    assert server.closed == {}
    for name in ("me/cat", "me/cat@main"):
        assert formats.load_concept(name).sha256() == formats.load_concept(word).sha256()
    assert main(["concept", "inspect", "me/cat"]) == 0
    assert "<cat>" in capsys.readouterr().out


def test_a_file_of_any_name_goes_by_the_usual_one(server, token, word, tmp_path):
    named = tmp_path / "lone" / "my-cat.safetensors"
    formats.save_concept(formats.load_concept(word), named)
    card.write_card(named)
    card.push_concept(named, "me/lone", private=True)
    assert "weight_name='learned_embeds.safetensors'" in (
        server.repositories["me/lone"]["README.md"].decode()
    )
    assert server.closed == {"me/lone": "private"}


def test_a_repository_with_one_file_of_another_name_will_do(server, word, tmp_path):
    formats.save_concept(formats.load_concept(word), tmp_path / "old.pt", "authors")
    server.repositories["them/old"] = {
        "README.md": b"", "old.pt": (tmp_path / "old.pt").read_bytes(),
    }  # fmt: skip
    assert formats.load_concept("them/old").num_vectors == 2
    server.repositories["them/old"]["new.pt"] = b""
    with pytest.raises(HubError, match=r"or one embedding file, got old.pt, new.pt"):
        formats.load_concept("them/old@main")
    server.repositories["them/none"] = {"README.md": b""}
    with pytest.raises(HubError, match="or one embedding file, got none"):
        formats.load_concept("them/none")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("private", "them/cat", "or a repository of the Hub, got neither; .* set HF_TOKEN"),
        ("gated", "them/cat", "because it is gated; ask for access"),
        ("", "them/nothing", "them/nothing must be a file or folder here or a repository"),
        ("", "them/cat@v9", "them/cat must have the revision 'v9'"),
    ],
)
def test_a_repository_that_cannot_be_read_is_one_sentence(server, kind, name, message):
    server.repositories["them/cat"] = {}
    if kind:
        server.closed["them/cat"] = kind
    with pytest.raises(HubError, match=message):
        formats.load_concept(name)


def test_what_was_downloaded_before_serves_without_the_hub(server, word, monkeypatch):
    server.repositories["me/cat"] = {formats.LEARNED: (word / formats.LEARNED).read_bytes()}
    known = formats.load_concept("me/cat")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert formats.load_concept("me/cat").sha256() == known.sha256()


def test_a_private_word_loads_with_a_token(server, token, word):
    data = (word / formats.LEARNED).read_bytes()
    server.repositories["me/secret"] = {formats.LEARNED: data}
    server.closed["me/secret"] = "private"
    assert formats.load_concept("me/secret").placeholder_token == "<cat>"


def test_without_the_hub_the_message_names_both_places(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(HubError, match="no file or folder here and the Hub cannot be reached"):
        formats.load_concept("runs/cat")


def test_an_upload_needs_a_token_that_may_write_a_card_and_a_name(server, word, monkeypatch):
    with pytest.raises(SharingError, match="Cannot share a word without a card"):
        card.push_concept(word, "me/cat")
    card.write_card(word)
    with pytest.raises(HubError, match="without a token that may write"):
        card.push_concept(word, "me/cat")
    with pytest.raises(HubError, match=r"\(403\): .*; the token must be allowed to write there"):
        card.push_concept(word, "me/cat", token="hf_reader")
    with pytest.raises(
        HubError, match="must be OWNER/NAME, or NAME for one of your own, got 'a cat'"
    ):
        card.push_concept(word, "a cat", token="hf_reader")
    with pytest.raises(HubError, match=r"The Hub refused the request for cat \(401\)"):
        card.push_concept(word, "cat", token="hf_reader")
    assert server.repositories == {}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"Cannot reach the Hub to upload me/cat"):
        card.push_concept(word, "me/cat", token="hf_reader")


def test_the_command_line_says_what_is_missing(word, capsys):
    assert main(["concept", "push", str(word)]) == 2
    assert "concept push FILE OWNER/NAME), got 1 arguments" in capsys.readouterr().err
    assert main(["concept", "card", str(word), str(word)]) == 2
    assert "concept card must get one file, got 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me/cat", True),
        ("sd-concepts-library/cat-toy@main", True),
        ("me/cat.safetensors", False),
        ("runs/a/b", False),
        ("/me/cat", False),
        ("./cat", False),
        ("cat", False),
    ],
)
def test_what_may_be_a_repository(text, expected):
    assert hub.is_repository(text) is expected


# --- what a downloaded file says is text


def carded(folder, token, **provenance):
    concept = Concept(
        placeholder_token=token, rows={"clip_l": torch.ones(1, 768)}, provenance=provenance
    )
    formats.save_concept(concept, folder / "c.safetensors")
    return card.write_card(folder / "c.safetensors").read_text()


@pytest.mark.parametrize(
    "token", ["<cat>", "<bob's-cat>", "<a>';touch pwned;'", "`$(touch,pwned)`", "<!--", "</pre>"]
)
def test_the_command_of_a_card_can_be_pasted(token, tmp_path):
    text = carded(tmp_path, token)
    (line,) = (line.strip() for line in text.splitlines() if "oneword generate" in line)
    assert shlex.split(line)[-1] == f"a photo of a {token}"


@pytest.mark.parametrize(
    "provenance",
    [
        {"base_model": "x\n\n# Owned <img src=x onerror=alert(1)>"},
        {"config": {"initializer_token": "<script>alert(2)</script>\n\n# Owned | x"}},
        {"base_model": ["x"], "family": ["x"], "learning_rate": {"clip": {"absolute": "x"}}},
        {"learning_rate": [], "config": [], "steps": {"# Owned": 1}, "train_time_s": "<b>"},
        {"learning_rate": {"<img src=x> | # x": {"absolute": 1.0}}},
    ],
)
def test_no_tag_and_no_heading_of_a_files_own_is_in_a_card(provenance, tmp_path):
    text = carded(tmp_path, "<cat>", **provenance)
    body = text.split("---", 2)[2].replace(card._MARK, "")
    plain = re.sub(r"(`+).+?\1", "", body)
    assert "<img" not in plain
    assert "<script" not in plain
    assert "<b>" not in plain
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        "# `<cat>`", "## Use", "## How `<cat>` was learned", "## Limits",
    ]  # fmt: skip
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (0, 3, 4) for line in body.splitlines())


def test_a_card_says_what_to_type_in_other_tools(tmp_path):
    text = carded(tmp_path, "<cat>")
    assert "| ComfyUI | `comfyui` | `embedding:my-word` |" in text
    assert "| A1111 | `a1111` | `my-word` |" in text
    assert "| InvokeAI | `invokeai` | `<my-word>` |" in text
    assert "| the paper's code | `authors` | `*` |" in text


@pytest.mark.parametrize(
    "text",
    [
        '{"scores": {"a": {"image_similarity": "1", "text_similarity": 1}}}',
        '{"scores": {}, "words": []}', '{"scores": {}, "words": {"a": 1}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_scores_of_another_form_are_one_sentence(text, tmp_path):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(SharingError, match=r"must be the scores.json that `oneword evaluate`"):
        card.read_scores(tmp_path / "scores.json")
