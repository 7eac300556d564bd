"""The second opinion on an export: the Python package's verifier, loaded from its one file, which needs nothing else."""

import importlib.util

from program import ROOT

PATH = ROOT / "crates/liotbchain-py/python/liotbchain/verify.py"

_spec = importlib.util.spec_from_file_location("verify", PATH)
verify = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(verify)
