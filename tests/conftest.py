"""Fixtures: the built program, a private PostgreSQL cluster, an empty folder for each test."""

import pytest

from postgres import Cluster
from program import BINARY, Receiver


@pytest.fixture(scope="session", autouse=True)
def binary():
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is not built; run: cargo build --release -p liotbchain", returncode=1)
    return BINARY


@pytest.fixture(scope="session")
def cluster():
    """A cluster for tests that need a database and leave the server alone."""
    cluster = Cluster()
    try:
        yield cluster.create()
    finally:
        cluster.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request):
    """The address of an empty store, of each kind in turn."""
    if request.param == "sqlite":
        return "sqlite:test.db"
    return request.getfixturevalue("cluster").new_database()


@pytest.fixture
def receiver(tmp_path):
    with Receiver(tmp_path) as receiver:
        yield receiver
