"""Runs the program ``liotbchain`` that came with this package: ``python -m liotbchain receiver``."""

import os
import sys
import sysconfig
from pathlib import Path


def find_program() -> Path:
    """Returns the path of the program, which pip puts beside the interpreter's other programs."""
    schemes = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user")]
    for folder in schemes:
        path = Path(folder) / "liotbchain"
        if path.is_file():
            return path
    raise FileNotFoundError(f"the program liotbchain is in none of {', '.join(schemes)}: install the package again")


def main() -> int:
    try:
        program = str(find_program())
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
