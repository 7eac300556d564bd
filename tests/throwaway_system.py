"""A Debian machine to throw away: a copy of this one's files, in memory, with a systemd and a network of its own.

It needs root, and a kernel that lets root mount overlays and control groups; a container without privileges does not.
"""

import os
import re
import subprocess
from pathlib import Path

from program import PATIENCE_S, wait_until

# Everything that starts with a machine and is not the subject: some of it would change this machine's kernel settings.
SPARE = [
    "/usr/lib/systemd/system-generators",
    *(f"/usr/lib/systemd/system/{name}.target.wants" for name in "sysinit sockets local-fs timers multi-user".split()),
    "/etc/systemd/system",
    "/usr/sbin/policy-rc.d",  # in a container it forbids to start services
]

NAMESPACES = ["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]

BOOT = """
set -eu
folder=$1
mount -t tmpfs tmpfs "$folder"
mkdir "$folder"/above "$folder"/work "$folder"/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/above,workdir=$folder/work" "$folder"/root
cd "$folder"/root
for spare in $SPARE; do rm -rf ".$spare"; done
mkdir -p etc/systemd/system/sysinit.target.wants
ln -s /usr/lib/systemd/system/systemd-journald.service etc/systemd/system/sysinit.target.wants/
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/shm dev/pts
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
echo 0123456789abcdef0123456789abcdef > etc/machine-id
pivot_root . mnt
exec chroot . sh -c 'umount --lazy /mnt && exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal'
"""


class System:
    """A running machine; it is switched off when the `with` block ends."""

    def __init__(self, folder):
        self.folder = Path(folder) / "machine"
        self.log_path = Path(folder) / "machine.log"
        own = re.search(r"(?m)^0::(.*)$", Path("/proc/self/cgroup").read_text())[1]
        hierarchy = re.search(r"(?m)^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text())[1]
        self.group = Path(hierarchy + own) / f"liotbchain-test-{os.getpid()}"

    def __enter__(self):
        self.folder.mkdir()
        self.group.mkdir()
        unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child"]
        join = f'echo $$ > {self.group}/cgroup.procs; exec "$@"'
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", join, "bash", *unshare, "bash", "-c", BOOT, "bash", self.folder],
                env=os.environ | {"SPARE": " ".join(SPARE)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.init = wait_until("systemd", self._find_init)
            wait_until("the machine to be up", self._is_up)
        except BaseException:
            self._switch_off()
            raise
        return self

    def __exit__(self, *_):
        self._switch_off()

    def run(self, *command, **options):
        """Runs a command in the machine and returns how it ended, and what it said."""
        return subprocess.run(
            ["nsenter", f"--target={self.init}", *NAMESPACES, "--root", "--wd", *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            **options,
        )

    def do(self, *command, **options):
        """Runs a command that must succeed and returns its standard output."""
        done = self.run(*command, **options)
        said = f"{done.stdout}{done.stderr}\n{self.journal() if done.returncode else ''}"
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{said}"
        return done.stdout

    def journal(self):
        return self.run("journalctl", "--no-pager", "--quiet", "--lines=200").stdout

    def _find_init(self):
        assert self.process.poll() is None, self.log_path.read_text()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            return int(children[0])

    def _is_up(self):
        return self.run("systemctl", "is-active", "--quiet", "multi-user.target").returncode == 0

    def _switch_off(self):
        self.process.kill()
        self.process.wait()
        for group in sorted(self.group.glob("**/"), key=lambda path: -len(path.parts)):
            wait_until(f"the end of {group}", lambda group=group: self._removed(group))

    @staticmethod
    def _removed(group):
        try:
            group.rmdir()
        except OSError:
            return False
        return True
