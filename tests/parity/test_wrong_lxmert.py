"""A wrong LXMERT does not replay the golden numbers."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import replay_lxmert

from albef.model import heads, layers
from albef.peers import lxmert
from albef.peers.lxmert import LXMERT, CrossLayer, FrozenRowsEncoder, MutualAttention, RegionEncoder
from albef.peers.regions import Pooler
from golden import Golden, deviation

FILE = Path(__file__).parent.parent / "golden" / "lxmert_pretrain.safetensors"
Patch = pytest.MonkeyPatch


def changed(change: Callable[[LXMERT], object]) -> Callable[[Patch], None]:
    """A slip in the model after its weights are loaded."""

    def slip(patch: Patch) -> None:
        load = replay_lxmert.load_model

        def load_changed(golden: Golden, *names: str) -> LXMERT:
            model = load(golden, *names)
            with torch.no_grad():
                change(model)
            return model

        patch.setattr(replay_lxmert, "load_model", load_changed)

    return slip


def of_class(owner: type, name: str, wrong: Callable[..., object]) -> Callable[[Patch], None]:
    """A slip in a method."""
    return lambda patch: patch.setattr(owner, name, wrong)


def with_eps(eps: float) -> Callable[[Patch], None]:
    """Other norms."""

    def change(model: LXMERT) -> None:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    return changed(change)


def tanh_gelu(patch: Patch) -> None:
    """The approximation of GELU."""

    class Approximate:
        def __getattr__(self, name: str) -> object:
            return getattr(F, name)

        @staticmethod
        def gelu(states: torch.Tensor) -> torch.Tensor:
            return F.gelu(states, approximate="tanh")

    for module in (layers, heads, lxmert):
        patch.setattr(module, "F", Approximate())


def one_after_the_other(self: CrossLayer, *inputs: object) -> object:
    """Regions see the text that has already seen them."""
    text, text_packing, regions, region_packing = inputs
    by_text, _ = self.attention(text, text_packing, regions, region_packing)
    text = self.attention_norm(text + by_text)
    _, by_regions = self.attention(text, text_packing, regions, region_packing)
    regions = self.attention_norm(regions + by_regions)
    return self.text_layer(text, text_packing), self.region_layer(regions, region_packing)


def self_first(self: CrossLayer, *inputs: object) -> object:
    """Both sides gather within themselves before they look at each other."""
    text, text_packing, regions, region_packing = inputs
    text, regions = self.text_layer(text, text_packing), self.region_layer(regions, region_packing)
    by_text, by_regions = self.attention(text, text_packing, regions, region_packing)
    return self.attention_norm(text + by_text), self.attention_norm(regions + by_regions)


def embedded(combine: Callable[..., torch.Tensor]) -> Callable[[Patch], None]:
    """Features and boxes put together in another way."""

    def forward(self: RegionEncoder, regions: lxmert.Regions) -> torch.Tensor:
        packing = layers.Packing.of(regions.mask)
        tokens = combine(self, packing.pack(regions.features), packing.pack(regions.boxes))
        for layer in self.layers:
            tokens = layer(tokens, packing)
        return packing.pad(tokens)

    return of_class(RegionEncoder, "forward", forward)


PLAIN_ATTENTION = MutualAttention.forward


def padding_attended(self: MutualAttention, *inputs: object) -> object:
    text, text_packing, *regions = inputs
    everything = text_packing._replace(mask=torch.ones_like(text_packing.mask))
    return PLAIN_ATTENTION(self, text, everything, *regions)


WRONG: dict[str, Callable[[Patch], None]] = {
    "eps of 1e-5": with_eps(1e-5),
    "eps of 1e-6": with_eps(1e-6),
    "GELU by tanh": tanh_gelu,
    "no token type": changed(lambda model: model.text_encoder.types.weight.zero_()),
    "no tanh in the pooler": of_class(Pooler, "forward", lambda self, states: self.linear(states[:, 0])),
    "one direction after the other": of_class(CrossLayer, "forward", one_after_the_other),
    "self-attention before cross-attention": of_class(CrossLayer, "forward", self_first),
    "no halving": embedded(
        lambda self, f, b: self.feature_norm(self.features(f)) + self.box_norm(self.boxes(b))
    ),
    "one norm for features and boxes": embedded(
        lambda self, f, b: self.feature_norm((self.features(f) + self.boxes(b)) / 2)
    ),
    "boxes from -1 to 1": embedded(
        lambda self, f, b: (self.feature_norm(self.features(f)) + self.box_norm(self.boxes(2 * b - 1))) / 2
    ),
    "padding attended": of_class(MutualAttention, "forward", padding_attended),
    "first rows learned": of_class(FrozenRowsEncoder, "learned", lambda self, table: table),
    "6.67 in place of 1/0.15": lambda patch: patch.setattr(replay_lxmert, "REGION_SCALE", 6.67),
    "squared differences of features": lambda patch: patch.setattr(
        replay_lxmert.region_objectives,
        "smooth_feature_loss",
        lambda predicted, features, count: (
            F.mse_loss(predicted, features, reduction="sum") / features.shape[1] / count
        ),
    ),
    "confidence left out": lambda patch: patch.setattr(
        replay_lxmert.region_objectives,
        "detected_class_loss",
        lambda logits, labels, confidence, count: F.cross_entropy(logits, labels, reduction="sum") / count,
    ),
}


def times_the_tolerance() -> float:
    """How far the worst tensor is off, in tolerances."""
    worst = 0.0
    for _, got, expected, (rtol, atol) in replay_lxmert.replay_pretrain(Golden(FILE)):
        assert got.shape == expected.shape
        worst = max(worst, ((got - expected).abs() / (atol + rtol * expected.abs())).max().item())
    return worst


def test_the_right_model_is_well_within_the_tolerance() -> None:
    assert times_the_tolerance() < 0.7


@pytest.mark.parametrize("slip", WRONG.values(), ids=WRONG)
def test_a_wrong_model_is_far_beyond_it(slip: Callable[[Patch], None], monkeypatch: Patch) -> None:
    slip(monkeypatch)
    assert times_the_tolerance() > 20
    assert not all(deviation(*row[1:])[2] for row in replay_lxmert.replay_pretrain(Golden(FILE)))
