"""Every task of the systems on regions, and the toy model whose batches it trains on."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import Config, TaskConfig
from albef.peers.lxmert_task import LxmertNLVR, LxmertPretrain, LxmertRetrieval, LxmertVQA
from albef.peers.oscar_task import OscarNLVR, OscarPretrain, OscarRetrieval, OscarVQA
from albef.peers.region_tasks import RegionTask
from albef.peers.uniter_task import UniterEntailment, UniterNLVR, UniterPretrain, UniterRetrieval, UniterVQA


class HardRetrieval(UniterRetrieval):
    """UNITER's retrieval with hard negatives."""

    def __init__(self, config: Config) -> None:
        super().__init__(dataclasses.replace(config, task=TaskConfig(hard_negatives=2)))


class TripletNLVR(UniterNLVR):
    """UNITER reads a text with both images."""

    def __init__(self, config: Config) -> None:
        super().__init__(dataclasses.replace(config, task=TaskConfig(two_images="triplet")))


class PairedNLVR(UniterNLVR):
    """UNITER reads a text with each image."""

    def __init__(self, config: Config) -> None:
        super().__init__(dataclasses.replace(config, task=TaskConfig(two_images="paired")))


OF_PAIRS = (UniterNLVR, TripletNLVR, PairedNLVR)
OF_UNITER = (UniterPretrain, UniterRetrieval, HardRetrieval, UniterVQA, UniterEntailment, *OF_PAIRS)
TASKS: dict[type[RegionTask], ModuleType] = {
    **dict.fromkeys(OF_UNITER, toy_uniter),
    **dict.fromkeys((OscarPretrain, OscarRetrieval, OscarVQA, OscarNLVR), toy_oscar),
    **dict.fromkeys((LxmertPretrain, LxmertRetrieval, LxmertVQA, LxmertNLVR), toy_lxmert),
}
