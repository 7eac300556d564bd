#!/usr/bin/env python3
"""A private PostgreSQL cluster: made in a new folder, on a free port, removed when it is stopped.

    python3 postgres.py start        prints the folder and the address, and leaves the cluster running
    python3 postgres.py stop FOLDER

PostgreSQL refuses to run as root; then everything runs as the user `postgres` that its package makes.
"""

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid

import psycopg2

from ports import free_port

NOT_FOUND = "PostgreSQL's server is not installed (no initdb found); run: apt-get install --no-install-recommends postgresql"


def find_program(name):
    """Returns the path of a server program; Debian keeps them out of PATH, a folder for each version."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: float(path.split("/")[4]))
    program = found[-1] if found else shutil.which(name)
    if not program:
        raise SystemExit(NOT_FOUND)
    return program


class Cluster:
    def __init__(self, folder=None):
        self.folder = folder
        self.port = None

    @property
    def url(self):
        return self.url_of("postgres")

    def url_of(self, database):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self):
        """Makes an empty cluster and starts it."""
        self.make_folder()
        self.run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", self.data)
        return self.start_on_a_free_port()

    def create_standby_of(self, primary):
        """Makes a copy of another cluster, in the place of what was here, and starts it as one that follows."""
        if self.folder:
            self.stop_if_running()
            shutil.rmtree(self.data)
        else:
            self.make_folder()
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        self.run("pg_basebackup", "-N", "-R", "-X", "stream", "-c", "fast", "-d", source, "-D", self.data)
        if self.port:
            self.start()
            return self
        return self.start_on_a_free_port()

    def make_folder(self):
        self.folder = tempfile.mkdtemp(prefix="liotbchain-postgres-", dir="/tmp")
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")

    def start_on_a_free_port(self):
        # Between the choice of a port and its use somebody else may take it.
        for attempt in range(5):
            self.port = free_port()
            try:
                self.start()
                return self
            except subprocess.CalledProcessError:
                if attempt == 4:
                    raise
        return self

    @property
    def data(self):
        return os.path.join(self.folder, "data")

    @property
    def pid_file(self):
        return os.path.join(self.data, "postmaster.pid")

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c max_connections=300"
        # The name that a standby has to its primary.
        options += " -c cluster_name=standby"
        self.pg_ctl("start", "-o", options)

    def stop(self, mode="fast"):
        self.pg_ctl("stop", "-m", mode)

    def restart(self, mode):
        self.pg_ctl("restart", "-m", mode)

    def promote(self):
        self.pg_ctl("promote")

    def kill(self):
        """Ends the server as a power cut would: its processes end when the first of them is gone."""
        with open(self.pid_file) as file:
            os.kill(int(file.readline()), signal.SIGKILL)
        # The number of the dead process may soon be another server's, for which these files would be taken.
        os.remove(self.pid_file)
        os.remove(os.path.join(self.folder, f".s.PGSQL.{self.port}.lock"))

    def stop_if_running(self):
        if os.path.exists(self.pid_file):
            try:
                self.stop("immediate")
            except subprocess.CalledProcessError:
                pass  # it was stopped already

    def remove(self):
        if self.folder:
            self.stop_if_running()
            shutil.rmtree(self.folder, ignore_errors=True)

    def pg_ctl(self, action, *options):
        log = os.path.join(self.folder, "log")
        try:
            self.run("pg_ctl", action, "-D", self.data, "-w", "-t", "120", "-l", log, *options)
        except subprocess.CalledProcessError:
            with open(log, errors="replace") as lines:
                sys.stderr.writelines(lines.readlines()[-20:])
            raise

    def run(self, program, *arguments):
        command = [find_program(program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # Output goes to a file: the server would keep a pipe open, and whoever reads it would wait for ever.
        with tempfile.TemporaryFile() as output:
            try:
                subprocess.run(
                    command, check=True, cwd="/tmp", stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=180
                )
            except subprocess.CalledProcessError:
                output.seek(0)
                sys.stderr.write(output.read().decode(errors="replace"))
                raise

    def new_database(self):
        """Makes an empty database and returns its address."""
        name = "test_" + uuid.uuid4().hex[:12]
        self.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def execute(self, statement, url=None):
        """Runs one statement and returns its rows, if it has any."""
        connection = psycopg2.connect(url or self.url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["start"]:
        cluster = Cluster()
        try:
            cluster.create()
        except BaseException:
            cluster.remove()
            raise
        print(cluster.folder)
        print(cluster.url)
    elif sys.argv[1:2] == ["stop"] and len(sys.argv) == 3:
        Cluster(sys.argv[2]).remove()
    else:
        sys.exit(__doc__)
