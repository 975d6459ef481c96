"""Shapes in annotations are checked in every test; property tests have no deadline, since machines differ."""

import os
import signal

os.environ["ALBEF_TRACEBACK"] = "1"  # what nobody foresaw is shown whole
# Test processes side by side have more threads than there are cores. Those that wait must not use up a core.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and trainings would ignore it too

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(
    ["albef.objectives", "albef.momentum", "albef.model", "albef.peers", "albef.tasks"], "beartype.beartype"
)

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

import toy  # noqa: E402
from albef.engine import Engine  # noqa: E402
from albef.model import kernels  # noqa: E402

# CI tries the same examples every time; elsewhere each run tries new ones.
settings.register_profile("albef", deadline=None, max_examples=30, derandomize=bool(os.environ.get("CI")))
settings.load_profile("albef")


@pytest.fixture(autouse=True)
def computing_as_before() -> Iterator[None]:
    """A training sets threads and kernels of its whole process, which the next test must not inherit."""
    threads, used = torch.get_num_threads(), kernels.used()
    yield
    torch.set_num_threads(threads)
    kernels.use(used)


@pytest.fixture
def engine() -> Engine:
    """A toy model with random weights that tell pictures apart."""
    return toy.engine()
