"""No test reads what the person who runs it has at home."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home without the person's own devices and samples, for this process and those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDG_COST_HOME", str(tmp_path_factory.mktemp("home")))
        yield
