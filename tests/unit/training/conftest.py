"""One thread for tests that train: tiny networks gain nothing from more, and results stay the same bit for bit."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
