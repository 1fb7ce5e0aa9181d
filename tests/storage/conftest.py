from __future__ import annotations

import pytest

from regstore.storage.s3.settings import TRANSPORT_VARIABLE, TRANSPORTS


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of sending requests to S3 in turn, for all storages that are opened then."""
    chosen: str = request.param
    monkeypatch.setenv(TRANSPORT_VARIABLE, chosen)
    return chosen
