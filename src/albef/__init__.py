"""albef (align before fuse): train, evaluate and use vision–language models.

The names below are the public interface. They are imported on first use, so that `albef --help` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

PUBLIC = {
    "ALBEF": "albef.model.albef",
    "Config": "albef.config",
    "Encoding": "albef.model.albef",
    "Engine": "albef.engine",
    "FeatureQueue": "albef.momentum",
    "ModelConfig": "albef.config",
    "MomentumTeacher": "albef.momentum",
    "Pretrain": "albef.tasks.pretrain",
    "UserError": "albef.config",
    "load_recipe": "albef.recipe",
}
__all__ = ["__version__", *PUBLIC]

if TYPE_CHECKING:
    from albef.config import Config as Config
    from albef.config import ModelConfig as ModelConfig
    from albef.config import UserError as UserError
    from albef.engine import Engine as Engine
    from albef.model.albef import ALBEF as ALBEF
    from albef.model.verbs import Encoding as Encoding
    from albef.momentum import FeatureQueue as FeatureQueue
    from albef.momentum import MomentumTeacher as MomentumTeacher
    from albef.recipe import load_recipe as load_recipe
    from albef.tasks.pretrain import Pretrain as Pretrain


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'albef' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)
