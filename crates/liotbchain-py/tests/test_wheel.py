"""The wheel in an environment where nothing else is: module, types and program."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# The aim is 15 MiB, which it misses by 0.6 since it carries the witness: module and program hold the same code twice.
SIZE_MAX = 16 << 20


@pytest.fixture(scope="session")
def wheel():
    wheels = list((ROOT / "target/wheels").glob("liotbchain-*.whl"))
    assert len(wheels) == 1, "expected one wheel in target/wheels; run: packaging/build-wheel"
    return wheels[0]


@pytest.fixture(scope="session")
def environment(tmp_path_factory, wheel):
    """A new environment with the wheel alone, and what it asks for itself."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(command, check=True)
    return folder / "bin"


def run(folder, *command):
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_wheel_is_for_every_python_from_3_9_on(wheel):
    assert re.fullmatch(r"liotbchain-[\d.]+-cp39-abi3-manylinux_\d+_\d+_\w+\.whl", wheel.name)
    assert wheel.stat().st_size < SIZE_MAX
    names = zipfile.ZipFile(wheel).namelist()
    for name in ["liotbchain/py.typed", "liotbchain/_native.pyi", "liotbchain/_native.abi3.so"]:
        assert name in names
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]


def test_the_module_works_and_leaves_nothing_behind(environment, tmp_path):
    program = """
import logging, sys
from liotbchain import Blockchain, __version__
assert not logging.getLogger().handlers
with Blockchain(transactions_per_block=1) as blockchain:
    blockchain.add_transaction({"device": "tank-1"})
    assert blockchain.is_chain_valid()
    print(__version__, len(blockchain.chain), blockchain.native.location)
"""
    version, blocks, location = run(tmp_path, environment / "python", "-c", program).split()
    assert (blocks, location) == ("2", f"sqlite:{tmp_path}/liotbchain-data/liotbchain.db")
    assert [path.name for path in tmp_path.iterdir()] == ["liotbchain-data"]
    # Closed in order, it leaves no log of the database.
    assert [path.name for path in (tmp_path / "liotbchain-data").iterdir()] == ["liotbchain.db"]
    assert run(tmp_path, environment / "liotbchain", "--version").strip() == f"liotbchain {version}"


@pytest.mark.parametrize("start", [["liotbchain"], ["python", "-m", "liotbchain"]], ids=["command", "module"])
def test_the_program_came_along_and_uses_the_same_chain(environment, tmp_path, start):
    program = "from liotbchain import Blockchain; b = Blockchain(); b.add_transaction(1); b.mine_block()"
    run(tmp_path, environment / "python", "-c", program)
    shown = run(tmp_path, environment / start[0], *start[1:], "chain", "validate")
    assert "valid" in shown and "2 blocks" in shown, shown


def test_the_verifier_says_what_it_needs(environment, tmp_path):
    run(tmp_path, environment / "python", "-c", "from liotbchain import Chain; Chain.open('sqlite:a.db').export('a.ndjson')")
    done = subprocess.run(
        [environment / "python", "-m", "liotbchain.verify", "a.ndjson"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "pip install cryptography" in done.stderr
    assert run(tmp_path, sys.executable, "-m", "liotbchain.verify", "a.ndjson").startswith("valid: 1 blocks")


def test_types_are_as_the_stubs_say(tmp_path):
    """mypy's stubtest compares the stubs with the module that is installed here."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "liotbchain._native"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


TYPED = """
from liotbchain import Blockchain, Block, Chain, SigningKey
from liotbchain.aio import AsyncChain
from liotbchain.database.db import load_blocks

blockchain = Blockchain(difficulty=1, db_url="memory:")
first: Block = blockchain.chain[0]
some: list[Block] = blockchain.chain[:1] + load_blocks("memory:")
text: str = first.calculate_hash() + blockchain.mine_block().calculate_merkle_root()
with Chain.open("memory:") as chain:
    height: int = chain.add(SigningKey.generate().sign({"a": 1})).height or 0


async def program() -> None:
    async with await AsyncChain.open("memory:") as chain:
        async for block in chain.blocks():
            length: int = len(block)
"""


def test_a_program_with_types_is_checked_with_those_of_the_package(tmp_path):
    (tmp_path / "program.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text("from liotbchain import Chain\n\nChain.open('memory:').add('1').height + 1\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run([*mypy, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([*mypy, "wrong.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "None" in done.stdout, done.stdout + done.stderr
