"""Published checkpoints in: all six recognised, sizes read off shapes, everything accounted for, misfits refused."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import toy
from albef.config import UserError
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.exchange.importing import Choices, import_checkpoint
from albef.exchange.structure import STRUCTURES
from albef.model_directory import QUEUE_FILE, TEACHER_FILE, read_config
from toy_published import NAMES, toy_state

TASKS = {structure.name: structure.task for structure in STRUCTURES}


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    """What toys need: their heads, and a tokenizer of as few pieces."""
    Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY).save(tmp_path / "tokenizer.json", toy.MODEL)
    return Choices(heads=(2,), tokenizer=tmp_path / "tokenizer.json")


def saved(file: Path, content: object) -> Path:
    torch.save(content, file)
    return file


def student_alone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the published fine-tuned files hold."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.partition(".")[0].endswith("_m") and "queue" not in name
    }


def other_style(name: str) -> str:
    """The name with `bert.` where it has none, and the other way round; the decoder's stay."""
    if not name.startswith(("text_encoder.", "text_encoder_m.")) or ".cls." in name:
        return name
    if ".bert." in name:
        return name.replace(".bert.", ".")
    return name.replace(".embeddings.", ".bert.embeddings.").replace(".encoder.", ".bert.encoder.", 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_published_model_is_recognised_with_its_sizes(
    tmp_path: Path, choices: Choices, name: str
) -> None:
    file = saved(tmp_path / "a.pth", toy_state(name))
    structure, rows = import_checkpoint(file, tmp_path / "model", choices)
    assert (structure.name, structure.task) == (name, TASKS[name])
    config, heads = read_config(tmp_path / "model" / "config.json")
    assert set(heads) == set(structure.heads)
    grid = {257: 2, 577: 3}[NAMES[name]["visual_encoder.pos_embed"][1]]
    assert (config.patch_size, config.image_size) == (8, 8 * grid)
    assert (config.image_depth, config.text_depth, config.fusion_depth) == (2, 2, 2)
    assert (config.image_heads, config.text_heads, config.vocab_size) == (2, 2, toy.VOCABULARY)
    assert {row.fate for row in rows} <= {"loaded", "ignored", "assumed"}
    told = sum(row.tensors for row in rows if row.tensors is not None)
    assert told == len(toy_state(name)), "every tensor is accounted for"
    assert (tmp_path / "model" / TEACHER_FILE).exists() == (name != "pretrain_nlvr")
    assert Engine.load(tmp_path / "model", quiet=True).model.heads == structure.heads


@pytest.mark.parametrize("name", NAMES)
def test_other_wrappings_and_names_give_the_same_model(tmp_path: Path, choices: Choices, name: str) -> None:
    state = toy_state(name)
    untied = {k: t for k, t in state.items() if "decoder.weight" not in k and "position_ids" not in k}
    variants = {
        "plain": state,
        "wrapped": {"model": {f"module.{k}": t for k, t in state.items()}, "epoch": 1},
        "other style": {other_style(k): t for k, t in state.items()},
        "untied": untied,
    }
    assert name == "pretrain_nlvr" or any(other_style(k) != k for k in state)
    weights = []
    for variant, content in variants.items():
        import_checkpoint(saved(tmp_path / "a.pth", content), tmp_path / variant, choices)
        weights.append(
            [load_file(file) for file in sorted((tmp_path / variant).glob("*.safetensors"))],
        )
    for others in weights[1:]:
        for one, other in zip(weights[0], others, strict=True):
            assert all(torch.equal(one[k], other[k]) for k in one | other)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pretrain_nlvr"])
def test_without_teacher_and_queue_the_table_says_what_stands_in(
    tmp_path: Path, choices: Choices, name: str
) -> None:
    file = saved(tmp_path / "a.pth", student_alone(toy_state(name)))
    structure, rows = import_checkpoint(file, tmp_path / "model", choices)
    assert structure.name == name
    missing = {row.part: row.why for row in rows if row.fate == "missing"}
    assert missing["teacher"] == "training starts with a copy of the student"
    assert ("queue" in missing) == structure.has_queue
    assert not (tmp_path / "model" / TEACHER_FILE).exists()
    assert not (tmp_path / "model" / QUEUE_FILE).exists()


def test_a_teacher_with_a_hole_is_none(tmp_path: Path, choices: Choices) -> None:
    state = toy_state("ve")
    del state["visual_encoder_m.norm.weight"]
    _, rows = import_checkpoint(saved(tmp_path / "a.pth", state), tmp_path / "model", choices)
    assert [row.part for row in rows if row.fate == "missing"] == ["teacher"]
    assert any(row.part == "teacher" and row.fate == "ignored" for row in rows)
    assert not (tmp_path / "model" / TEACHER_FILE).exists()


def test_positions_are_resized_on_request_the_teacher_s_too(tmp_path: Path, choices: Choices) -> None:
    state = toy_state("pretrain")
    for name in ("visual_encoder.pos_embed", "visual_encoder_m.pos_embed"):
        state[name] = torch.full_like(state[name], 0.25)
    file = saved(tmp_path / "a.pth", state)
    _, rows = import_checkpoint(file, tmp_path / "model", choices._replace(image_size=32))
    for part in ("model", "teacher"):
        positions = load_file(tmp_path / "model" / f"{part}.safetensors")["image_encoder.positions"]
        assert positions.shape == (1, 17, 16)
        torch.testing.assert_close(positions, torch.full((1, 17, 16), 0.25))
    assert "32: positions resized from 2 × 2 to 4 × 4" in [row.why for row in rows]
    assert Engine.load(tmp_path / "model").config.image_size == 32
    with pytest.raises(UserError, match=r"not divisible by model\.patch_size"):
        import_checkpoint(file, tmp_path / "other", choices._replace(image_size=33))
    with pytest.raises(UserError, match="image_size is -8, but it must be at least 1"):
        import_checkpoint(file, tmp_path / "other", choices._replace(image_size=-8))
    assert not (tmp_path / "other").exists()


def test_lavis_files_have_sep_and_others_on_request(tmp_path: Path, choices: Choices) -> None:
    """The names are the published ones; the buffers stay, the teacher is dropped by LAVIS's saving."""
    state = student_alone(toy_state("retrieval/grounding"))
    state["image_queue"] = torch.zeros(8, 10)
    cases = {
        ("albef_coco_retrieval_lavis.pt", None): True,
        ("albef_coco_retrieval_lavis.pt", False): False,
        ("mscoco.pth", None): False,
        ("mscoco.pth", True): True,
    }
    for number, ((name, given), expected) in enumerate(cases.items()):
        file = saved(tmp_path / name, {"model": state, "optimizer": {}, "scaler": {}, "config": {"run": {}}})
        folder = tmp_path / str(number)
        _, rows = import_checkpoint(file, folder, choices._replace(append_sep=given))
        assert read_config(folder / "config.json")[0].append_sep is expected
        (end,) = [row.why for row in rows if row.part == "[SEP]"]
        assert ("no [SEP]" in end) is not expected


def test_heads_are_64_wide_unless_told(tmp_path: Path, choices: Choices) -> None:
    file = saved(tmp_path / "a.pth", toy_state("ve"))
    with pytest.raises(UserError, match=r"image encoder is 16 wide.*--heads IMAGE TEXT"):
        import_checkpoint(file, tmp_path / "model", choices._replace(heads=()))
    with pytest.raises(UserError, match="text encoder is 16 wide, which 3 attention heads"):
        import_checkpoint(file, tmp_path / "model", choices._replace(heads=(4, 3)))
    with pytest.raises(UserError, match="not 3"):
        import_checkpoint(file, tmp_path / "model", choices._replace(heads=(4, 2, 2)))
    import_checkpoint(file, tmp_path / "model", choices._replace(heads=(4, 2)))
    config = read_config(tmp_path / "model" / "config.json")[0]
    assert (config.image_heads, config.text_heads) == (4, 2)
    told = {name: getattr(config, name) for name in ("image_heads", "text_heads", "dropout", "append_sep")}
    torch.save({"model": toy_state("ve"), "config": {"albef": told | {"max_words": "many"}}}, file)
    import_checkpoint(file, tmp_path / "model", choices._replace(heads=()))
    assert read_config(tmp_path / "model" / "config.json")[0] == config


def test_answers_go_along(tmp_path: Path, choices: Choices) -> None:
    (tmp_path / "answers.json").write_text(json.dumps(["a fox", "two red cars"]))
    file = saved(tmp_path / "a.pth", toy_state("vqa"))
    import_checkpoint(file, tmp_path / "model", choices._replace(answers=tmp_path / "answers.json"))
    assert Engine.load(tmp_path / "model").answers == ["a fox", "two red cars"]


def changed(name: str, **changes: Tensor | None) -> dict[str, Tensor]:
    state = dict(toy_state(name))
    for part, tensor in changes.items():
        full = part.replace("__", ".")
        if tensor is None:
            state = {k: t for k, t in state.items() if not k.startswith(full)}
        else:
            state[full] = tensor
    return state


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (
            {"fc.weight": torch.zeros(2, 2)},
            r"not one of the published models of ALBEF, CLIP, LXMERT, OSCAR and UNITER.*\(but fc\.weight",
        ),
        (changed("ve", cls_head=None), "has no head of the published models"),
        (changed("ve", cls_head__2__weight=torch.zeros(7, 16)), "cls_head has 7 classes"),
        (changed("ve", visual_encoder__pos_embed=torch.zeros(1, 9, 16)), "do not belong to a square image"),
        (
            changed("ve", visual_encoder__patch_embed__proj__weight=torch.zeros(16, 3, 0, 0)),
            "do not belong to a square image",
        ),
        (changed("ve", visual_encoder__blocks__0__mlp=None), r"blocks\.0\.mlp\.fc1\.weight is missing"),
        (
            changed("ve", text_encoder__embeddings__position_embeddings=None),
            r"position_embeddings\.weight is missing",
        ),
        (
            changed("ve", visual_encoder__blocks__1__norm1=None),
            r"\(visual_encoder\.blocks\.1\.norm1\.weight is missing; visual_encoder\.blocks\.1\.norm1\.bias is",
        ),
        (
            changed("ve", visual_encoder__norm__bias=torch.zeros(17)),
            r"visual_encoder\.norm\.bias is \[17\] instead of \[16\]",
        ),
        (changed("ve", visual_encoder__norm__bias=torch.zeros(16, dtype=torch.int8)), "holds torch.int8"),
        (
            changed("vqa", text_decoder__cls__predictions__decoder__weight=torch.zeros(40, 16)),
            "in ALBEF they are equal",
        ),
        (changed("pretrain", text_queue=torch.zeros(9, 10)), "image_queue|text_queue is"),
        (
            {
                name.replace("layer.2.", "layer.0.").replace("layer.3.", "layer.1."): tensor
                for name, tensor in toy_state("ve").items()
            },
            r"another model \(BLIP\?\)",
        ),
    ],
)
def test_wrong_and_foreign_files_are_refused_and_nothing_is_written(
    tmp_path: Path, choices: Choices, state: dict[str, Tensor], match: str
) -> None:
    file = saved(tmp_path / "a.pth", state)
    with pytest.raises(UserError, match=match) as error:
        import_checkpoint(file, tmp_path / "model", choices)
    assert str(file) in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "tokenizer.json"}


def test_a_pair_of_layers_with_keys_of_their_own_is_another_model(tmp_path: Path, choices: Choices) -> None:
    state = toy_state("nlvr")
    name = "text_encoder.encoder.layer.3.crossattention.self.key.weight"
    state[name] = state[name] + 1
    with pytest.raises(UserError, match="in ALBEF they are equal"):
        import_checkpoint(saved(tmp_path / "a.pth", state), tmp_path / "model", choices)


def test_bert_s_tokenizer_needs_as_many_embeddings(tmp_path: Path, choices: Choices) -> None:
    file = saved(tmp_path / "a.pth", toy_state("ve"))
    with pytest.raises(
        UserError, match=r"40 word embeddings, but the tokenizer has 30522 tokens.*--tokenizer"
    ):
        import_checkpoint(file, tmp_path / "model", choices._replace(tokenizer=None))


def test_somebody_s_folder_is_not_overwritten(tmp_path: Path, choices: Choices) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(UserError, match=r"holds photo\.jpg"):
        import_checkpoint(saved(tmp_path / "a.pth", toy_state("ve")), tmp_path / "mine", choices)


def test_half_precision_stays_half(tmp_path: Path, choices: Choices) -> None:
    state = {name: t.half() if t.is_floating_point() else t for name, t in toy_state("ve").items()}
    import_checkpoint(saved(tmp_path / "a.pth", state), tmp_path / "model", choices)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert dataclasses.asdict(Engine.load(tmp_path / "model").config)["text_depth"] == 2
