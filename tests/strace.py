"""Watches the system calls that threads of a program make on some files, and fails or kills one of them."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass

from program import PATIENCE_S

NOT_FOUND = "strace is not installed; run: apt-get install --no-install-recommends strace"
NOT_PERMITTED = (
    "strace may not trace a process here: ptrace is forbidden.\n"
    "Run the tests as root or set kernel.yama.ptrace_scope=0; in a container, add --cap-add=SYS_PTRACE."
)

# After this time strace is stuck.
DETACH_S = 3

# `name(the rest`, after the thread where strace watches several. A call that another interrupts starts the same.
CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")


@dataclass(frozen=True)
class Call:
    """The n-th call of this name, from 1, that a thread made."""

    name: str
    number: int
    text: str

    def __str__(self):
        return f"{self.name} {self.number}: {self.text[:160]}"


def threads(process_id, named=None):
    """Returns the ids of the threads of a process, or of those with a name, as far as the system shows it."""
    found = []
    for thread in os.listdir(f"/proc/{process_id}/task"):
        with open(f"/proc/{process_id}/task/{thread}/comm") as comm:
            if named is None or comm.read().strip() in named:
                found.append(thread)
    return found


class Strace:
    """Watches threads for as long as the `with` block lasts, and leaves them running after it.

    Only calls on the files named, or on descriptors of them, are seen, counted and tampered with.
    """

    def __init__(self, thread_ids, files, inject=None, hexadecimal=False):
        if not shutil.which("strace"):
            raise AssertionError(NOT_FOUND)
        handle, self.log_path = tempfile.mkstemp(prefix="strace-")
        os.close(handle)
        command = ["strace", "-y", "-o", self.log_path, "-e", "trace=%file,%desc", "-s", "32"]
        if hexadecimal:
            # All that is written; paths stay readable.
            command += ["-s", "1000000", "--strings-in-hex=all"]
        for thread in thread_ids:
            command += ["-p", thread]
        for file in files:
            command += ["-P", str(file)]
        if inject:
            command += ["-e", f"inject={inject}"]
        self.command = command
        self.thread_ids = thread_ids
        self.lines = None  # until it has ended

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in self.thread_ids:
            told = self.process.stderr.readline()
            # A thread that had nothing to do may have ended since.
            if not re.search(r"Process \d+ attached|No such process", told):
                self.process.kill()
                told += self.process.stderr.read()
                self.__exit__()
                raise AssertionError(NOT_PERMITTED if "not permitted" in told else f"strace did not attach: {told}")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(DETACH_S)
        except subprocess.TimeoutExpired:
            # It may wait for ever for a thread that died with its process; the system detaches what it leaves.
            self.process.kill()
            self.process.wait(PATIENCE_S)
        self.process.stderr.close()
        self.lines = self.lines_so_far()
        os.unlink(self.log_path)

    def lines_so_far(self):
        """Returns the calls so far, a line each. Those whose effects anybody has seen are among them."""
        with open(self.log_path, errors="replace") as log:
            return log.read().splitlines()

    @property
    def calls(self):
        """All calls, numbered by thread and name as strace counts them for its injections."""
        counts = Counter()
        calls = []
        for line in self.lines:
            match = CALL.match(line)
            if match:
                thread = line.split()[0] if line[0].isdigit() else None
                counts[thread, match[1]] += 1
                calls.append(Call(match[1], counts[thread, match[1]], match[2]))
        return calls

    def has_injected(self):
        """Whether a call was made to fail so far."""
        lines = self.lines_so_far() if self.lines is None else self.lines
        return any("(INJECTED)" in line for line in lines)
