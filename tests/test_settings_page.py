"""docs/settings.md says what the program says of its settings."""

import json
import re

from program import ROOT, run


def test_the_page_of_settings_is_what_the_program_says(tmp_path):
    page = (ROOT / "docs/settings.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    told = json.loads(run("config", "show", "--json", folder=tmp_path, settings={"DATA_DIR": None}).stdout)["settings"]
    expected = [(row["name"], row["default"], row["allowed"], row["meaning"]) for row in told]
    assert [(name, default.strip("`"), allowed, meaning) for name, default, allowed, meaning in rows] == expected
