"""The named model sizes."""

from __future__ import annotations

from typing import Any

# Settings that all sizes except `base` have in common.
OF_SIZE: dict[str, dict[str, Any]] = {
    "tiny": dict(
        image_size=48,
        patch_size=12,
        image_width=96,
        image_depth=4,
        image_heads=3,
        image_mlp_width=384,
        text_width=96,
        text_depth=2,
        fusion_depth=2,
        text_heads=3,
        text_mlp_width=384,
        feature_width=64,
        vocabulary="trained",
        vocab_size=512,
        max_positions=64,
        dropout=0.0,
        initial_std=0.1,
        sine_positions=True,
    ),
    "small": dict(
        image_width=384,
        image_heads=6,
        image_mlp_width=1536,
        text_width=384,
        text_heads=6,
        text_mlp_width=1536,
    ),
    "base": {},
}
