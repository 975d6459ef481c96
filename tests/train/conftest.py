"""A device that has shapes and no values."""

import contextlib

import pytest
import torch

from albef.model import kernels


@pytest.fixture
def no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on the meta device, which has shapes and no values: whoever asks for one fails."""
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: contextlib.nullcontext()
    )  # unknown to this device
    monkeypatch.setattr(kernels, "_used", kernels.Kernels("plain", "torch"))
