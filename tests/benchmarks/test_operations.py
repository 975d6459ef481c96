"""The operations of the systems at base size."""

import pytest
from operations import MODELS, counted

from albef.model import kernels

EXPECTED = {  # LXMERT: as counted for its published code
    "LXMERT": {"image": 2.68, "text": 2.56},
    "CLIP ViT-B/32": {"image": 8.82},
    "UNITER": {"text": 0.0},
}


@pytest.mark.parametrize("name", MODELS)
def test_operations_are_those_of_the_architecture(name: str) -> None:
    before = kernels.used()
    kernels.use(kernels.Kernels("plain", "torch"))
    try:
        found = counted(MODELS[name])
    finally:
        kernels.use(before)
    assert ("pair" in found) == (name != "CLIP ViT-B/32")
    for part, expected in EXPECTED.get(name, {}).items():
        assert found[part] == pytest.approx(expected, abs=0.006)
    if name == "OSCAR":  # 36 tags beside 20 tokens and 36 regions
        assert found["pair"] > 1.5 * counted(MODELS["UNITER"])["pair"]
