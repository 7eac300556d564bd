"""The Debian package: what is in it, what its installation, upgrade and removal do, and whether its units are sound.

dpkg installs it into an empty folder instead of a machine. With LIOTBCHAIN_LONG=1 (./test --long), which needs root
then, it is also installed on a machine to throw away, whose systemd runs the services with all that the units forbid.
"""

import json
import os
import re
import shlex
import signal
import subprocess

import pytest

import program
from program import BINARY, PATIENCE_S, ROOT, Server, environment, run, wait_until
from throwaway_system import System

LONG = os.environ.get("LIOTBCHAIN_LONG") == "1"

UNITS = {name: f"liotbchain-{name}.service" for name in ("receiver", "sender")}


def call(*command, **options):
    """Runs a command that must succeed and returns what it printed."""
    done = subprocess.run(
        [*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=300, **options
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "liotbchain.deb"
    call(ROOT / "packaging/build-deb", "--fast", "--output", path)
    return path


@pytest.fixture(scope="module")
def next_package(package, tmp_path_factory):
    """The same package with the next version, and one more line among the sender's settings."""
    folder = tmp_path_factory.mktemp("next")
    call("dpkg-deb", "--raw-extract", package, folder)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", r"\g<0>.1", control.read_text()))
    with open(folder / "etc/liotbchain/sender.env", "a") as settings:
        settings.write("# The next version.\n")
    path = folder.with_suffix(".deb")
    call("dpkg-deb", "--build", "--root-owner-group", "-Znone", folder, path)
    return path


class Folder:
    """A folder that dpkg takes for the root of a machine; the package's own scripts run outside of it."""

    def __init__(self, path):
        self.path = path
        self.pretend = []
        if os.geteuid() != 0:
            pretence = path.with_suffix(".fakeroot")
            pretence.touch()
            self.pretend = ["fakeroot", "-i", pretence, "-s", pretence]
        for place in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc", "usr/sbin"):
            (path / place).mkdir(parents=True)
        (path / "var/lib/dpkg/status").touch()
        # The services of this machine, if it has any, are none of its business.
        policy = path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)

    def __truediv__(self, place):
        return self.path / place

    def call(self, *command):
        return call(*self.pretend, *command)

    def dpkg(self, *arguments):
        forced = "--force-script-chrootless", "--force-depends", "--force-not-root", "--no-triggers"
        return self.call("dpkg", f"--root={self.path}", f"--log={self.path}.log", *forced, *arguments)

    def owner(self, place):
        """Returns mode, user and group of a file, as numbers."""
        return self.call("stat", "-c", "%a %u %g", self / place).split()

    def ids(self, table):
        """Returns the numbers in etc/passwd or etc/group by name."""
        lines = [line.split(":") for line in (self / "etc" / table).read_text().splitlines()]
        return {line[0]: line[2] for line in lines}

    def liotbchain(self, service, *arguments):
        """Runs the installed program where its service runs."""
        return call(self / "usr/bin/liotbchain", *arguments, cwd=self / "etc/liotbchain" / service, env=environment({}))


@pytest.fixture
def folder(package, tmp_path):
    """An installation for one test."""
    folder = Folder(tmp_path / "root")
    folder.dpkg("--install", package)
    return folder


@pytest.fixture(scope="module")
def installed(package, tmp_path_factory):
    """An installation for all tests that leave it as it is."""
    folder = Folder(tmp_path_factory.mktemp("installed") / "root")
    folder.dpkg("--install", package)
    return folder


def unit_settings(text):
    """Returns the settings of a unit; of one that comes more than once the last."""
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", text))


# What is in it -----------------------------------------------------------------------------------------------------


def test_the_program_is_the_built_one_without_debug_information(installed):
    assert installed.liotbchain("receiver", "--version") == call(BINARY, "--version")
    sections = call("readelf", "--section-headers", "--wide", installed / "usr/bin/liotbchain")
    assert ".text" in sections
    assert ".debug_line" not in sections and ".symtab" not in sections


def test_every_command_has_a_page_and_completions(installed, tmp_path):
    call(BINARY, "man", "--out", tmp_path / "man")
    pages = {path.name + ".gz" for path in (tmp_path / "man").iterdir()}
    assert pages == {path.name for path in (installed / "usr/share/man/man1").iterdir()}
    for shell, place in {
        "bash": "bash-completion/completions/liotbchain",
        "zsh": "zsh/vendor-completions/_liotbchain",
        "fish": "fish/vendor_completions.d/liotbchain.fish",
    }.items():
        assert (installed / "usr/share" / place).read_text() == call(BINARY, "completions", shell)
    call("bash", "-n", installed / "usr/share/bash-completion/completions/liotbchain")


def test_it_says_under_which_licences_it_is(installed):
    licences = installed / "usr/share/doc/liotbchain/third-party-licences.gz"
    listed = re.findall(r"(?m)^==== (\S+) \S+: \S", call("gzip", "--decompress", "--stdout", licences))
    assert {"tokio", "rusqlite", "aws-lc-rs"} <= set(listed)
    assert not [name for name in listed if name.startswith("liotbchain")]
    assert "License: MIT or Apache-2.0" in (installed / "usr/share/doc/liotbchain/copyright").read_text()


def test_it_depends_on_no_library_but_the_c_library(package):
    depends = call("dpkg-deb", "--field", package, "Depends").strip().split(", ")
    assert {name.split()[0] for name in depends} <= {"libc6", "libgcc-s1", "systemd"}


# The units ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS.values())
def test_systemd_understands_the_units(installed, unit):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={installed.path}", unit],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS.values())
def test_the_units_forbid_what_the_program_does_without(unit):
    call("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=15", ROOT / "packaging" / unit)


def test_the_units_forbid_the_same():
    texts = [(ROOT / "packaging" / unit).read_text() for unit in UNITS.values()]
    receiver, sender = (text.partition("# What it does without")[2] for text in texts)
    assert receiver and receiver == sender


# The settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", UNITS)
def test_the_settings_are_those_of_the_program(installed, service, tmp_path):
    settings = installed / f"etc/liotbchain/{service}.env"
    known = json.loads(installed.liotbchain(service, "config", "show", "--json"))["settings"]
    shown = {setting["name"]: setting for setting in known}
    assert shown["DATA_DIR"]["value"] == f"/var/lib/liotbchain-{service}"
    named = re.findall(r"(?m)^#([A-Z][A-Z_]+)=", settings.read_text())
    assert len(named) > 5
    assert set(named) <= set(shown)
    # As they stand there they may be uncommented, all of them.
    (tmp_path / ".env").write_text(re.sub(r"(?m)^#([A-Z][A-Z_]+=)", r"\1", settings.read_text()))
    assert run("config", "check", folder=tmp_path, settings={"DATA_DIR": None}).returncode == 0


@pytest.mark.parametrize("service", UNITS)
def test_a_service_starts_where_it_is_installed_and_stops_in_time(installed, service, tmp_path, monkeypatch):
    unit = unit_settings((installed / "usr/lib/systemd/system" / UNITS[service]).read_text())
    binary, command = shlex.split(unit["ExecStart"])
    monkeypatch.setattr(program, "BINARY", installed / binary.lstrip("/"))
    working = installed / unit["WorkingDirectory"].lstrip("/")
    with Server(command, f"{command.upper()}_LISTEN", working, {"DATA_DIR": tmp_path / "data"}) as server:
        wait_until("the service to answer", lambda: server.answers("/healthz"))
        server.signal(signal.SIGTERM)
        assert server.wait(int(unit["TimeoutStopSec"])) == 0, server.output


# Installation ------------------------------------------------------------------------------------------------------


def test_the_installation_makes_users_and_starts_nothing(installed):
    for service in UNITS:
        user = f"liotbchain-{service}"
        assert installed.ids("passwd")[user] and installed.ids("group")[user]
        # Tokens stand there.
        assert installed.owner(f"etc/liotbchain/{service}.env") == ["640", "0", installed.ids("group")[user]]
        assert os.readlink(installed / f"etc/liotbchain/{service}/.env") == f"../{service}.env"
    assert not (installed / "etc/systemd").exists()


def test_an_upgrade_keeps_changed_settings_and_takes_new_ones(folder, next_package):
    settings = folder / "etc/liotbchain/receiver.env"
    changed = settings.read_text() + "DIFFICULTY=3\n"
    settings.write_text(changed)
    owner = folder.owner("etc/liotbchain/receiver.env")
    # An editor that writes a new file and renames it puts one in the place of the link.
    link = folder / "etc/liotbchain/sender/.env"
    assert link.is_symlink()
    link.unlink()
    link.write_text("API_TOKEN=of-somebody\n")
    folder.dpkg("--install", next_package)
    assert link.read_text() == "API_TOKEN=of-somebody\n"
    assert (folder / "etc/liotbchain/receiver/.env").is_symlink()
    assert settings.read_text() == changed
    assert folder.owner("etc/liotbchain/receiver.env") == owner
    assert "# The next version." in (folder / "etc/liotbchain/sender.env").read_text()


def test_removal_keeps_the_settings_and_purging_keeps_the_chain(folder):
    data = folder / "var/lib/liotbchain-receiver/liotbchain.db"
    data.parent.mkdir()
    data.write_text("a chain")
    folder.dpkg("--remove", "liotbchain")
    assert (folder / "etc/liotbchain/sender.env").exists()
    assert not (folder / "usr/bin/liotbchain").exists()
    assert str(data.parent) in folder.dpkg("--purge", "liotbchain")
    assert data.read_text() == "a chain"
    left = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if "liotbchain" in path.name}
    assert left == {"var/lib/liotbchain-receiver", "var/lib/liotbchain-receiver/liotbchain.db"}


# On a machine ------------------------------------------------------------------------------------------------------


# It has a network of its own, so both listen where they do by default.
SERVERS = "http://127.0.0.1:5001", "http://127.0.0.1:5000"


class Machine(System):
    """A machine with the package on it."""

    def install(self, package):
        # With settings that were changed on both sides, dpkg would ask.
        self.do("dpkg", "--no-triggers", "--force-confold", "--install", package)

    def show(self, unit, setting):
        return self.do("systemctl", "show", "--value", f"--property={setting}", unit).strip()

    def get(self, url):
        done = self.run("curl", "--silent", "--fail", url)
        return done.stdout if done.returncode == 0 else None

    def wait_for(self, url):
        return wait_until(f"{url}; {self.journal()}", lambda: self.get(url))

    def height(self):
        return json.loads(self.wait_for(SERVERS[0] + "/v1/status"))["height"]

    def as_user(self, service, line):
        """Runs a shell command as a service's user, where that service runs."""
        line = f"cd /etc/liotbchain/{service} && {line}"
        return self.run("runuser", "-u", f"liotbchain-{service}", "--", "sh", "-c", line)


if LONG:  # half a minute

    def test_the_services_run_on_a_machine(package, next_package, tmp_path):
        with Machine(tmp_path) as machine:
            machine.install(package)
            for unit in UNITS.values():
                assert machine.run("systemctl", "is-enabled", unit).stdout.strip() == "disabled"
                assert machine.show(unit, "ActiveState") == "inactive"
            # Names are looked up with all that is forbidden, too.
            machine.do("sh", "-c", "echo RECEIVER_URL=http://localhost:5001 >> /etc/liotbchain/sender.env")
            machine.do("systemctl", "enable", "--now", *UNITS.values())
            for server in SERVERS:
                machine.wait_for(server + "/healthz")
            readings = "--json", '[{"device":"pi","value":1},{"device":"pi","value":2}]'
            machine.do("curl", "--silent", "--fail", *readings, "http://127.0.0.1:5000/readings")
            wait_until("a block", lambda: machine.height() > 0)
            for service, unit in UNITS.items():
                pid = machine.show(unit, "MainPID")
                status = dict(re.findall(r"(?m)^(\w+):\s+(\S+)$", machine.do("cat", f"/proc/{pid}/status")))
                held = {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
                assert (held, status["NoNewPrivs"], status["Seccomp"]) == ({"0" * 16}, "1", "2")
                owner = machine.do("stat", "-c", "%U %a", f"/var/lib/liotbchain-{service}").split()
                assert owner == [f"liotbchain-{service}", "700"]

            export = machine.as_user("receiver", "liotbchain chain export --out -")
            assert export.stdout.count("value") == 2, export.stderr
            checked = machine.as_user("sender", "liotbchain sender check")
            assert checked.returncode == 0, checked
            assert machine.as_user("receiver", "cat /var/lib/liotbchain-sender/sender_key.pem").returncode != 0
            assert machine.as_user("receiver", "cat /etc/liotbchain/sender.env").returncode != 0

            for unit in UNITS.values():
                pid = machine.show(unit, "MainPID")
                machine.do("kill", "-KILL", pid)
                wait_until(f"{unit} to come back", lambda: machine.show(unit, "MainPID") not in (pid, "0"))
            for server in SERVERS:
                machine.wait_for(server + "/healthz")

            # An upgrade restarts what runs, and starts nothing else.
            machine.do("systemctl", "stop", UNITS["sender"])
            before = machine.height(), machine.show(UNITS["receiver"], "MainPID")
            machine.install(next_package)
            assert machine.show(UNITS["receiver"], "MainPID") not in (before[1], "0")
            assert machine.show(UNITS["sender"], "MainPID") == "0"
            assert machine.height() >= before[0]

            machine.do("systemctl", "stop", UNITS["receiver"])
            for unit in UNITS.values():
                ended = machine.show(unit, "Result"), machine.show(unit, "ExecMainStatus")
                assert ended == ("success", "0"), machine.journal()
            machine.do("dpkg", "--no-triggers", "--purge", "liotbchain")
            machine.do("test", "-s", "/var/lib/liotbchain-receiver/liotbchain.db")
            machine.do("test", "!", "-e", "/etc/liotbchain")
            assert machine.run("systemctl", "is-enabled", *UNITS.values()).returncode != 0
