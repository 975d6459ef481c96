"""Fine-tuning for retrieval and grounding: ITC and ITM on images with several texts (paper §5.1)."""

from __future__ import annotations

from albef.config import Config
from albef.tasks.pretrain import Pretrain


class Retrieval(Pretrain):
    """L = L_itc + L_itm, as in pre-training, but with all texts of an image as its positives (paper §5.1)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.same_image = True
