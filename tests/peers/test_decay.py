"""What weight decay spares in the systems on regions, beside what the published optimizers spare."""

import pytest

import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import TrainConfig
from albef.peers import oscar_names, uniter_names
from albef.peers.bert_names import Naming
from albef.peers.regions import RegionModel
from albef.train.optim import build_optimizer

# Norms whose published names lack "LayerNorm", so that the published code decays them. We spare all norms.
UNITERS_NORMS = {
    *("uniter.img_embeddings.img_layer_norm.weight", "uniter.img_embeddings.pos_layer_norm.weight"),
    *("feat_regress.net.2.weight", "region_classifier.net.2.weight", "vqa_output.2.weight"),
}


def decayed(model: RegionModel, config: TrainConfig) -> set[str]:
    """The names of the parameters that decay."""
    groups = build_optimizer(model, config).param_groups
    return {name for group in groups if group["weight_decay"] for name in group["param_names"]}


@pytest.mark.parametrize(
    ("model", "naming", "norms"),
    [
        (toy_uniter.model(), uniter_names.UNITER, UNITERS_NORMS),
        (toy_uniter.model(("answers",)), uniter_names.UNITER, UNITERS_NORMS),
        (toy_oscar.model(), oscar_names.naming_of(toy_oscar.CONFIG), set()),
        (toy_oscar.model("nlvr"), oscar_names.naming_of(toy_oscar.CONFIG), {"classifier.2.weight"}),
    ],
)
def test_with_embeddings_everything_decays_but_biases_and_norms_as_published(
    model: RegionModel, naming: Naming, norms: set[str]
) -> None:
    published = {
        name
        for name, _ in model.named_parameters()
        if not any(part in naming.parts(name)[0] for part in ("bias", "LayerNorm.weight"))
    }
    ours = decayed(model, TrainConfig(decay_embeddings=True))
    assert ours <= published
    assert {naming.parts(name)[0] for name in published - ours} == norms & {
        naming.parts(name)[0] for name, _ in model.named_parameters()
    }


def test_everything_of_lxmert_decays() -> None:
    model = toy_lxmert.model()
    assert decayed(model, TrainConfig(optimizer="bertadam")) == {name for name, _ in model.named_parameters()}
