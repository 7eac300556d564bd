"""Fixtures: a private PostgreSQL cluster, and the address of an empty chain on each kind of store."""

import sys
from pathlib import Path

import pytest

# The end-to-end tests have what starts a PostgreSQL cluster and picks a free port.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))

from postgres import Cluster  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL cluster of these tests' own."""
    cluster = Cluster()
    try:
        yield cluster.create()
    finally:
        cluster.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def db_url(request, tmp_path):
    """The address of a chain that does not exist yet, on each kind of store in turn."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'chain.db'}"
    return request.getfixturevalue("cluster").new_database()
