"""Shapes in annotations are checked in every test; property tests have no deadline, since machines differ."""

from jaxtyping import install_import_hook

install_import_hook(["albef.objectives", "albef.momentum", "albef.model", "albef.tasks"], "beartype.beartype")

from hypothesis import settings  # noqa: E402

settings.register_profile("albef", deadline=None, max_examples=30)
settings.load_profile("albef")
