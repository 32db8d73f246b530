"""Reading what every tool writes, writing what the common ones read, refusing everything else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from safetensors.torch import load_file, save_file

import layouts
from oneword.concepts import formats
from oneword.concepts.concept import Concept, ConceptError
from oneword.concepts.formats import contents
from oneword.concepts.mixing import average, concatenated, distinct
from oneword.errors import UserError


@pytest.fixture
def concept():
    rows = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    return Concept(
        placeholder_token="<My-Cat>", rows={"clip": rows}, provenance={"steps": 3, "note": "π"}
    )


# --- the native file


def test_a_round_trip_keeps_rows_spelling_and_provenance(concept, tmp_path):
    formats.save_concept(concept, tmp_path / "c.safetensors")
    back = formats.load_concept(tmp_path / "c.safetensors")
    assert torch.equal(back.rows["clip"], concept.rows["clip"])
    assert back.placeholder_token == "<My-Cat>"
    assert back.provenance == concept.provenance


def test_the_key_is_the_placeholder_in_lower_case(concept, tmp_path):
    formats.save_concept(concept, tmp_path / "c.safetensors")
    tensors = load_file(tmp_path / "c.safetensors")
    assert list(tensors) == ["<my-cat>"]
    assert tensors["<my-cat>"].shape == (2, 8)


def test_several_encoders_are_keyed_by_their_names(tmp_path):
    rows = {"clip_l": torch.ones(1, 4), "t5xxl": torch.zeros(1, 6)}
    formats.save_concept(Concept(placeholder_token="x", rows=rows), tmp_path / "c.safetensors")
    assert set(load_file(tmp_path / "c.safetensors")) == {"clip_l", "t5xxl"}
    back = formats.load_concept(tmp_path / "c.safetensors")
    assert {n: r.shape for n, r in back.rows.items()} == {n: r.shape for n, r in rows.items()}


def test_several_words_share_a_file_even_if_they_differ_in_case_alone(concept, tmp_path):
    pair = Concept(placeholder_token="b", rows={"clip_l": torch.ones(1, 4), "t5": torch.ones(1, 6)})
    many = [concept, concept.named("<my-cat>"), pair]
    formats.save_concept(many, tmp_path / "c.safetensors")
    back = formats.load_all(tmp_path / "c.safetensors")
    assert [c.placeholder_token for c in back] == ["<My-Cat>", "<my-cat>", "b"]
    assert [c.sha256() for c in back] == [c.sha256() for c in many]
    with pytest.raises(contents.FormatError, match=r"one word here, got 3 .*extract"):
        formats.load_concept(tmp_path / "c.safetensors")


def test_a_run_folder_and_another_name(concept, tmp_path):
    formats.save_concept(concept, tmp_path / formats.LEARNED)
    assert formats.load_concept(tmp_path).placeholder_token == "<My-Cat>"
    assert formats.load_concept(tmp_path, "<b>").placeholder_token == "<b>"


def test_changed_rows_are_found(concept, tmp_path):
    path = tmp_path / "c.safetensors"
    formats.save_concept(concept, path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConceptError, match="must match the file's SHA-256"):
        formats.load_concept(path)


@pytest.mark.parametrize("known", [{"x": 1}, [{"x": 1}], 3, "s", [3], None])
def test_metadata_that_is_not_ours_does_no_harm(tmp_path, known):
    path = tmp_path / "c.safetensors"
    save_file({"s": torch.ones(1, 4)}, path, metadata={"oneword": json.dumps(known)})
    with pytest.raises(ConceptError, match="metadata"):
        formats.load_concept(path)


# --- other tools' files


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_the_layouts_of_other_tools_are_read(tmp_path, name):
    file = formats.read(layouts.write(name, tmp_path))
    expected = layouts.LAYOUTS[name][2]
    assert {c.placeholder_token for c in file.concepts} == set(expected)
    for concept in file.concepts:
        rows = expected[concept.placeholder_token]
        assert concept.rows.keys() == rows.keys()
        assert all(torch.equal(concept.rows[n], rows[n]) for n in rows)
        assert all(r.dtype == torch.float32 for r in concept.rows.values())


def test_what_is_not_used_is_said(tmp_path):
    path = layouts.write("onetrainer", tmp_path)
    with pytest.warns(UserWarning, match=r"'emp_params_out' \(2, 768\) .* not used"):
        formats.load_concept(path)
    assert (
        "other half of a pair" in formats.read(layouts.write("diffusers pair", tmp_path)).notes[0]
    )
    assert "3 other tensors" in formats.read(layouts.write("lora bundle", tmp_path)).notes[0]


def test_steps_and_checkpoint_of_a1111_are_kept(tmp_path):
    known = formats.load_concept(layouts.write("a1111 pt", tmp_path)).provenance
    assert known == {"file": "file.pt", "steps": 1200, "base_model": "v1-5-pruned-emaonly"}


# --- writing


def of(**rows):
    return Concept(placeholder_token="<My-Cat>", rows=rows, provenance={"steps": 7})


@pytest.mark.parametrize("layout", formats.WRITERS)
def test_what_is_written_is_read_back(tmp_path, layout):
    concept = of(clip_l=layouts.R)
    (path,) = formats.save_concept(concept, tmp_path / f"x{formats.WRITERS[layout][0]}", layout)
    back = formats.load_concept(path)
    assert torch.equal(back.rows["clip_l"], layouts.R)
    assert back.placeholder_token.lower() == "<my-cat>"


@pytest.mark.parametrize("layout", ["oneword", "diffusers", "kohya"])
def test_several_encoders_are_written_and_read_back(tmp_path, layout):
    concept = of(clip_l=layouts.R, clip_g=layouts.G)
    paths = formats.save_concept(concept, tmp_path / "x.safetensors", layout)
    back = formats.load_all(paths[0]) if layout != "diffusers" else formats.read(paths[0]).concepts
    assert back[0].sha256() == concept.sha256()
    assert len(paths) == (2 if layout == "diffusers" else 1)


def test_the_keys_are_those_that_other_tools_document(tmp_path):
    pair = of(clip_l=layouts.R, clip_g=layouts.G)
    one = of(clip_l=layouts.R)
    formats.save_concept(pair, tmp_path / "p.safetensors", "diffusers")
    assert list(load_file(tmp_path / "p.safetensors")) == ["<my-cat>"]
    assert load_file(tmp_path / "p_2.safetensors")["<my-cat>"].shape == (2, 1280)
    formats.save_concept(one, tmp_path / "k.safetensors", "kohya")
    assert list(load_file(tmp_path / "k.safetensors")) == ["emb_params"]
    flux = of(clip_l=layouts.R, t5xxl=layouts.T)
    formats.save_concept(flux, tmp_path / "f.safetensors", "comfyui")
    assert set(load_file(tmp_path / "f.safetensors")) == {"clip_l", "t5xxl"}
    with (tmp_path / "k.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert header["modelspec.trigger_phrase"] == "<My-Cat>"
    formats.save_concept(one, tmp_path / "a.pt", "a1111")
    a1111 = torch.load(tmp_path / "a.pt", weights_only=True)  # noqa: TID251
    assert torch.equal(a1111["string_to_param"]["*"], layouts.R)
    assert (a1111["name"], a1111["step"]) == ("<My-Cat>", 7)
    formats.save_concept([one, one.named("b")], tmp_path / "p.pt", "authors")
    authors = torch.load(tmp_path / "p.pt", weights_only=True)  # noqa: TID251
    assert torch.equal(authors["string_to_param"]["b"], layouts.R)


@pytest.mark.parametrize(
    ("layout", "concepts", "message"),
    [
        ("a1111", [of(clip_l=layouts.R, t5xxl=layouts.T)], "one CLIP text encoder"),
        ("a1111", [of(clip_l=layouts.R)] * 2, "must contain one word, got 2"),
        ("kohya", [of(clip_l=layouts.R)] * 2, "must contain one word, got 2"),
        ("authors", [of(clip_l=layouts.R)] * 2, "no word and no sign twice"),
        ("diffusers", [of(clip_l=layouts.R)] * 2, "differ in lower case"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(tmp_path, layout, concepts, message):
    with pytest.raises(contents.FormatError, match=message):
        formats.save_concept(concepts, tmp_path / "x", layout)
    assert not list(tmp_path.iterdir())


# --- refusing


def _zipped(data, name="archive/data.pkl"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


_PARAMETERS = torch.nn.ParameterDict({"a": torch.nn.Parameter(torch.ones(8))})


class _Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil-was-here"),)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "must exist"),
        (lambda p: p.write_text("no embedding"), "that begins with b'no embed'"),
        (lambda p: p.write_bytes(b""), "that begins with b''"),
        (lambda p: save_file({"a": torch.ones(1), "b": torch.ones(1)}, p), "known layout.*'a'"),
        (lambda p: save_file({"a": torch.ones(1, 2, 3)}, p), r"known layout, got .*\(1, 2, 3\)"),
        (lambda p: save_file({"a": torch.ones(2, 3).int()}, p), "the tensors none"),
        (lambda p: p.mkdir(), "has its training finished"),
        (lambda p: save_file({k: torch.ones(8) for k in ("IN01", "IN02", "MID")}, p), "'IN01'"),
        (lambda p: save_file({"x": torch.ones(2000, 8)}, p), "1 to 1024 vectors"),
        (lambda p: p.write_bytes(struct.pack("<Q", 10 << 30) + b'{"a":' + b" " * 99), "claims 107"),
        (lambda p: p.write_bytes(struct.pack("<Q", 40) + b"{" * 60), "damaged"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40), "damaged"),
        (lambda p: torch.save({"x": _Evil()}, p), r"pickled (builtins\.)?getattr, which could run"),
        (lambda p: p.write_bytes(pickle.dumps(_Evil(), 2)), "pickled|damaged"),
        (lambda p: torch.save(_PARAMETERS, p, _use_new_zipfile_serialization=False), "source code"),
        (lambda p: p.write_bytes(_zipped(bytes(300 << 20))), "unpack to at most 256 MiB"),
        (lambda p: p.write_bytes(_zipped(pickle.dumps([1 << 40], 2))), "the size 1099511627776"),
        (lambda p: p.write_bytes(_zipped(b"\x80\x02")), "damaged"),
        (lambda p: torch.save({"x": torch.ones(1).expand(9999, 9999)}, p), "size|1 to 1024"),
        (lambda p: torch.save([[[[[[[[torch.ones(3)]]]]]]]], p), "larger or deeper"),
    ],
)  # fmt: skip
def test_what_is_no_embedding_is_refused(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.safetensors"
    make(path)
    with pytest.raises(contents.FormatError, match=message):
        formats.load_concept(path)
    assert not Path("evil-was-here").exists()


def test_a_whole_model_is_refused_by_its_size(tmp_path):
    path = tmp_path / "model.ckpt"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(300 * 2**20)
    with pytest.raises(contents.FormatError, match="is it a whole model"):
        formats.load_concept(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_refused(tmp_path, bad):
    save_file({"<x>": torch.tensor([1.0, bad])}, tmp_path / "x.safetensors")
    with pytest.raises(ConceptError, match="must be finite"):
        formats.load_concept(tmp_path / "x.safetensors")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    return [layouts.in_memory(name, folder) for name in layouts.LAYOUTS]


def fuzzed(count):
    unsafe = [HealthCheck.function_scoped_fixture]  # each example writes the file anew
    return settings(max_examples=count, deadline=None, suppress_health_check=unsafe)


def _survives(data, folder):
    path = folder / "fuzzed"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        formats.read(path)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_raise_only_our_own_errors(originals, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(originals)))
    # headers and pickles lie at the ends; the numbers between are less rewarding
    edge = st.one_of(
        st.integers(0, len(content) - 1),
        st.integers(0, min(2000, len(content) - 1)),
        st.integers(max(0, len(content) - 2000), len(content) - 1),
    )
    for place in data.draw(st.lists(edge, min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(edge) :]
    _survives(bytes(content), tmp_path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=st.binary(max_size=12), rest=st.binary(max_size=400))
@example(header=b"\x80\x02", rest=b"")
@example(header=b"PK\x03\x04", rest=b"")
def test_noise_raises_only_our_own_errors(tmp_path, header, rest):
    for start in (
        b"",
        b"\x80\x02",
        b"PK\x03\x04",
        b"\x89PNG\r\n\x1a\n",
        struct.pack("<Q", 60) + b"{",
    ):
        _survives(start + header + rest, tmp_path)


_NAMES = st.sampled_from(
    ["emb_params", "clip_l", "clip_g", "t5", "<a>", "*", "string_to_param", "name", "x", ""]
)
_TENSORS = [
    torch.ones(2, 8), torch.ones(8), torch.ones(0, 8), torch.ones(1, 1, 1, 8), torch.tensor(1.0),
    torch.ones(3).int(), torch.full((2, 8), 9e99, dtype=torch.float64),
    torch.ones(2, 3).to_sparse(),
]  # fmt: skip
_VALUES = st.recursive(
    st.one_of(st.sampled_from(_TENSORS), st.text(max_size=5), st.integers(), st.none()),
    lambda inner: st.dictionaries(_NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=_VALUES)
def test_unexpected_pickles_raise_only_our_own_errors(tmp_path, value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    _survives(buffer.getvalue(), tmp_path)


# --- small files that claim much


def _pickled(*instructions):
    return _zipped(b"\x80\x02" + b"".join(instructions) + b".")


def _shared_dicts(levels=8, each=100):
    """Dicts that share one another: few bytes, each ** levels ways through them."""
    out = [b"}"]
    for level in range(levels):
        below = b"h" + bytes([level - 1]) if level else b"K\1"
        own = b"".join(b"K" + bytes([i]) + below + b"s" for i in range(each))
        out.append(b"K" + bytes([200 + level]) + b"}q" + bytes([level]) + own + b"s")
    return b"".join(out)


def _long_list_many_calls():
    long = b"]q\0(" + b"K\1" * 200_000 + b"e"
    return long + b"(" + (b"c__builtin__\nset\n(h\0tR" * 8000) + b"t"


def _bundle(count):
    entries = ",".join(
        f'"bundle_emb.{i:x}":{{"dtype":"F32","shape":[1,1],"data_offsets":[{4 * i},{4 * i + 4}]}}'
        for i in range(count)
    )
    header = f"{{{entries}}}".encode()
    return struct.pack("<Q", len(header)) + header + b"\1\0\0\0" * count


def _named_often(path, count, shape=(1024, 16384)):
    big = torch.zeros(shape)
    sha = Concept(placeholder_token="x", rows={"clip_l": big}).sha256()
    entry = {"kind": "textual-inversion", "keys": {"clip_l": "s*"}, "sha256": sha, "provenance": {}}
    entries = [{"placeholder_token": f"t{i}", **entry} for i in range(count)]
    save_file({"s*": big}, path, {"oneword": json.dumps(entries)})


def _views(path, count, **how):
    one = torch.ones(1)
    views = {f"w{i}": one.as_strided((1024, 16384), (0, 0)) for i in range(count)}
    torch.save({"string_to_param": views}, path, **how)


def _hidden_behind_a_pickle(path):
    """The old container, with an archive of good faith behind it that a zip reader would find."""
    inside, outside = io.BytesIO(), io.BytesIO()
    torch.save({"x": torch.ones(8)}, inside)
    torch.save({"x": _Evil()}, outside, _use_new_zipfile_serialization=False)
    path.write_bytes(outside.getvalue() + inside.getvalue())


def _longer_than_its_numbers(path, **how):
    torch.save({"<x>": torch.ones(768)}, path, **how)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<H", 768), struct.pack("<H", 60_000)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(_pickled(_shared_dicts())), "larger or deeper"),
        (lambda p: p.write_bytes(_pickled(b"}" * 300_000)), "262145 instructions or more"),
        (lambda p: p.write_bytes(_pickled(_long_list_many_calls())), "8193 objects|larger|instr"),
        (lambda p: p.write_bytes(_pickled(b"cbuiltins\nbytearray\nJ\0\0\0\1\x85R")), "bytearray"),
        (lambda p: p.write_bytes(_pickled(b"]]s")), "damaged"),
        (lambda p: p.write_bytes(_pickled(b"(ios\nsystem\n")), "pickle instruction INST"),
        (lambda p: p.write_bytes(_pickled(b"}(tK\1s")), "strings for names, got a tuple"),
        (lambda p: p.write_bytes(_pickled(b"}\x8a\x09" + b"\0" * 8 + b"\1K\1s")), "the size"),
        (lambda p: p.write_bytes(_bundle(9000)), "at most 8192 words .*, got 9000 words"),
        (lambda p: _named_often(p, 300), r"'s\*' for 300 of them"),
        (lambda p: _named_often(p, 2, (1, 8)), r"'s\*' for 2 of them"),
        (lambda p: _views(p, 1500), r"134217728 numbers together, got 1500 words of 25165824000"),
        (lambda p: _views(p, 1500, _use_new_zipfile_serialization=False), "got 1500 words"),
        (_hidden_behind_a_pickle, r"pickled builtins\.getattr, which could run"),
        (_longer_than_its_numbers, "must hold its tensors' numbers|damaged"),
        (
            lambda p: _longer_than_its_numbers(p, _use_new_zipfile_serialization=False),
            "must hold its tensors' numbers",
        ),
    ],
)  # fmt: skip
def test_a_small_file_that_claims_much_is_refused_before_it_is_made(
    make, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    make(path)
    start, before = time.monotonic(), _peak_mb()
    with pytest.raises(contents.FormatError, match=message):
        formats.load_concept(path)
    assert time.monotonic() - start < 10
    assert _peak_mb() - before < 400
    assert not Path("evil-was-here").exists()


def _peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_file_of_many_words_is_read_in_a_moment(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(_bundle(8000))
    start = time.monotonic()
    assert len(formats.read(tmp_path / "x.safetensors").concepts) == 8000
    assert time.monotonic() - start < 20


def _native(**changes):
    entry = {
        "placeholder_token": "<x>", "kind": "textual-inversion", "keys": {"clip": "x"},
        "sha256": "0", "provenance": {},
    }  # fmt: skip
    return json.dumps([{**entry, **changes}])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
        (_native(placeholder_token=3), "'placeholder_token'.* must be a string, got 3"),
        (_native(placeholder_token="a\x1b[2J"), "without control characters"),
        (_native(placeholder_token=""), "without control characters"),
        (_native(keys=["x"]), "'keys'.* must be an object"),
        (_native(keys={"clip": "y"}), "must name tensors of the file, got 'y'"),
        (_native(deltas={"unet.x.diff": "x"}), "must name each tensor once"),
        (_native(provenance=[]), "'provenance'.* must be an object"),
        (_native(), "must match the file's SHA-256"),
    ],
)
def test_metadata_of_another_form_is_one_sentence(metadata, message, tmp_path):
    save_file({"x": torch.ones(1, 8)}, tmp_path / "x.safetensors", {"oneword": metadata})
    with pytest.raises(ConceptError, match=message):
        formats.load_concept(tmp_path / "x.safetensors")


# --- files beside one another


@pytest.mark.parametrize(
    "second",
    [
        {"<cat>": layouts.R + 5},  # another word for the same encoder
        {"<cat>": layouts.G[:1]},  # as many vectors have the halves of a pair
        {"<dog>": layouts.G},
        {"<cat>": layouts.G, "<dog>": layouts.G + 1},
        {"emb_params": layouts.G},
    ],
)
def test_a_word_that_is_called_like_a_second_half_stays_apart(second, tmp_path):
    save_file({"<cat>": layouts.R}, tmp_path / "cat.safetensors")
    save_file(second, tmp_path / "cat_2.safetensors")
    file = formats.read(tmp_path / "cat.safetensors")
    assert file.concepts[0].rows.keys() == {"clip_l"}
    assert torch.equal(file.concepts[0].rows["clip_l"], layouts.R)
    assert file.notes == []


def test_a_damaged_neighbour_does_no_harm(tmp_path):
    save_file({"<cat>": layouts.R}, tmp_path / "cat.safetensors")
    (tmp_path / "cat_2.safetensors").write_text("{")
    file = formats.read(tmp_path / "cat.safetensors")
    assert torch.equal(file.concepts[0].rows["clip_l"], layouts.R)
    assert "cat_2.safetensors, next to it, cannot be read" in file.notes[0]


def test_a_folder_like_a_repository_of_the_hub_is_read(tmp_path):
    torch.save({"<cat>": torch.ones(768)}, tmp_path / "learned_embeds.bin")
    (tmp_path / "token_identifier.txt").write_text("<cat>")
    assert formats.load_concept(tmp_path).placeholder_token == "<cat>"
    torch.save({"<dog>": torch.ones(768)}, tmp_path / "other.bin")
    with pytest.raises(contents.FormatError, match=r"or one embedding file, got .*bin, .*bin"):
        formats.load_concept(tmp_path)


def test_a_run_that_has_not_ended_is_no_embedding(tmp_path):
    save_file({"<cat>": torch.ones(768)}, tmp_path / "state.safetensors")
    with pytest.raises(contents.FormatError, match="has its training finished"):
        formats.load_concept(tmp_path)
    save_file({"<cat>": torch.ones(768)}, tmp_path / "other.safetensors")
    with pytest.raises(contents.FormatError, match="has its training finished"):
        formats.load_concept(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_regular_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "x.pt"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(
        contents.FormatError, match=r"must exist and be readable, got .*(FIFO|device)"
    ):
        formats.read(path)


# --- mixing


def test_words_that_are_taken_get_a_number(concept):
    words = ["<cat>", "dog", "<CAT>", "<cat>", "dog", "<cat-2>"]
    found, renamed = distinct([concept.named(word) for word in words])
    assert [c.placeholder_token for c in found] == [
        "<cat>", "dog", "<CAT-3>", "<cat-4>", "dog-2", "<cat-2>",
    ]  # fmt: skip
    assert renamed == {2: "<CAT-3>", 3: "<cat-4>", 4: "dog-2"}


def test_averages_and_concatenations(concept):
    other = Concept(placeholder_token="o", rows={"clip": torch.zeros(2, 8)})
    mixed = average([concept, other], "m", [3.0, 1.0])
    assert torch.allclose(mixed.rows["clip"], 0.75 * concept.rows["clip"])
    assert mixed.provenance["weights"] == [3.0, 1.0]
    both = concatenated([other, concept], "b")
    assert torch.equal(both.rows["clip"], torch.cat([torch.zeros(2, 8), concept.rows["clip"]]))
    with pytest.raises(ConceptError, match=r"one per concept .2."):
        average([concept, other], "m", [1.0])
    with pytest.raises(ConceptError, match="not 0, got"):
        average([concept, other], "m", [1.0, -1.0])
    with pytest.raises(ConceptError, match="same text encoders, with the same shapes"):
        average([concept, both], "m")
    with pytest.raises(ConceptError, match="same text encoders, with the same widths"):
        concatenated([concept, of(clip_l=layouts.R)], "m")


def test_a_file_that_names_no_encoder_fits_the_only_one_of_its_width():
    rows = torch.ones(1, 1280)
    word = Concept(placeholder_token="w", rows={"clip_g": rows})
    assert list(word.fitted({"bert": 1280}).rows) == ["bert"]
    assert list(word.fitted({"bert": 768}).rows) == ["clip_g"]
    assert list(word.fitted({"clip_l": 768, "clip_g": 1280}).rows) == ["clip_g"]


def test_tensors_of_a_kind_survive_in_our_layout_and_are_refused_in_others(tmp_path):
    tensors = {"net/w": torch.arange(24.0).reshape(2, 3, 4), "net/b": torch.tensor(2.0)}
    word = Concept(placeholder_token="<X>", rows={"clip": torch.ones(1, 8)}, kind="neti",
                   tensors=tensors)  # fmt: skip
    formats.save_concept(word, tmp_path / "x.safetensors")
    found = formats.load_concept(tmp_path / "x.safetensors")
    assert (found.kind, found.sha256()) == ("neti", word.sha256())
    assert found.tensors["net/w"].shape == (2, 3, 4)
    for layout in ("diffusers", "kohya", "a1111", "authors"):
        with pytest.raises(
            contents.FormatError, match=f"in the layout {layout} because .* of kind neti"
        ):
            formats.save_concept(word, tmp_path / "y", layout)
