"""The boxes that a detector proposed for the images of an annotation file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from albef.config import UserError
from albef.data.annotations import AnnotationSource
from albef.data.records import LeftOut, Record
from albef.data.rows import are_pixels
from albef.data.text_files import unusable
from albef.errors import reading


class ProposalSource:
    """The rows of an annotation file, each with the boxes that a detector proposed for its image."""

    couple = 1

    def __init__(self, source: AnnotationSource, detections: Path) -> None:
        self._source, self._detections = source, detections
        self.notes: Sequence[str] = source.notes
        self.left_out: Sequence[LeftOut] = source.left_out
        reading.set(detections)
        try:
            self._boxes = json.loads(detections.read_text("utf-8-sig"))
        except Exception as error:  # broken content may raise anything
            raise unusable(detections, "data.detections", error) from None
        if not isinstance(self._boxes, dict):
            raise UserError(f'{detections}: expected {{"image number": [[x, y, w, h], …]}}.')

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int, epoch: int) -> Record:
        """Row `index` with its image's proposals. The image's number is the last number in its file name."""
        record = self._source.record(index, epoch)
        numbers = re.findall(r"[0-9]+", Path(str(record.image)).stem)
        number = numbers[-1].lstrip("0") or "0" if numbers else ""
        boxes = self._boxes.get(number)
        if not boxes:
            raise UserError(
                f"{self._detections}: has no boxes for the image of {record.origin} ({record.image}); add them under "
                f"the image's number, or leave the detections out."
            )
        if not isinstance(boxes, list) or not all(
            isinstance(box, list) and len(box) >= 4 and are_pixels(box[:4]) for box in boxes
        ):
            raise UserError(
                f"{self._detections}: the boxes of image {number} are not [x, y, width, height, …]; correct them."
            )
        return replace(record, proposals=tuple((box[0], box[1], box[2], box[3]) for box in boxes))
