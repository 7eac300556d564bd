"""The gateway on disks that are full, read-only or damaged: readings are refused rather than lost, and what is left of a queue
arrives."""

import os
import re
import resource
import subprocess
from contextlib import contextmanager

import pytest

import program
from gateway import (
    MIB,
    Filler,
    Gateway,
    away,
    check_all_arrive,
    check_exactly_once_in_order,
    counters,
    numbered,
    receiver_at,
    records,
    wait_for_sealed,
)
from program import run, wait_until
from strace import Strace, threads


class SmallDisk:
    """A file system of 8 MiB, or where none may be mounted, files that may not grow beyond that."""

    SIZE = 8 * MIB

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "none", folder]
        mounted = subprocess.run(command, capture_output=True, check=False)
        self.is_mounted = mounted.returncode == 0

    def limit(self, gateway):
        if not self.is_mounted:
            limit_files(gateway, self.SIZE)

    def extend(self, gateway):
        if self.is_mounted:
            subprocess.run(["mount", "-o", "remount,size=256m", self.folder], check=True)
        else:
            limit_files(gateway, resource.RLIM_INFINITY)

    def remove(self):
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.remove()


def limit_files(gateway, size):
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_and_loses_nothing(tmp_path, small_disk):
    with Gateway(tmp_path / "gateway", away(), DATA_DIR=small_disk.folder) as gateway:
        small_disk.limit(gateway)
        filler = Filler(gateway)
        filler.send_until(503)
        assert filler.taken * filler.padding > small_disk.SIZE / 2, "the disk was not full"
        assert gateway.get("/healthz").status_code == 200
        assert gateway.get("/readyz").status_code == 503
        assert gateway.waiting == filler.taken
        small_disk.extend(gateway)
        filler.send_until(202)
        wait_until("the gateway to be ready", lambda: gateway.get("/readyz").status_code == 200)
        check_all_arrive(gateway, tmp_path, {filler.device: filler.taken})


def test_a_full_disk_is_emptied_by_the_receiver(tmp_path, small_disk):
    """Nobody has to make room by hand, though SQLite needs some to delete."""
    with Gateway(tmp_path / "gateway", away(), DATA_DIR=small_disk.folder) as gateway:
        small_disk.limit(gateway)
        filler = Filler(gateway)
        filler.send_until(503)
        with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path) as receiver:
            wait_for_sealed(receiver, filler.taken)
            if not small_disk.is_mounted:
                # Files that may not grow are no full disk: there may be room for a new one.
                small_disk.extend(gateway)
            filler.send_until(202)
            wait_for_sealed(receiver, filler.taken)
            gateway.wait_until_empty()
            assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), {filler.device: filler.taken})


def test_a_full_disk_at_the_start_loses_nothing(tmp_path, small_disk):
    with Gateway(tmp_path / "gateway", away(), DATA_DIR=small_disk.folder) as gateway:
        small_disk.limit(gateway)
        filler = Filler(gateway)
        filler.send_until(503)
        gateway.kill()
        # Whether it starts without room, or says why not: with room it does, and all is there.
        gateway.start()
        small_disk.limit(gateway)
        wait_until("a start or an end", lambda: gateway.process.poll() is not None or answers(gateway))
        if gateway.process.poll() is not None:
            assert str(small_disk.folder) in gateway.stderr and "hint:" in gateway.stderr
        gateway.kill()
        small_disk.extend(gateway)
        gateway.restart()
        assert filler.send() == 202
        check_all_arrive(gateway, tmp_path, {filler.device: filler.taken})


def answers(gateway):
    return gateway.process.poll() is None and gateway.answers("/healthz")


@contextmanager
def read_only(folder, monkeypatch, tmp_path):
    """Takes the right to write in a folder from the program, also where it is root: no mount is needed for that."""
    if os.geteuid() == 0:
        unprivileged = tmp_path / "unprivileged"
        drop = "setpriv --bounding-set -dac_override,-dac_read_search"
        unprivileged.write_text(f'#!/bin/sh\nexec {drop} "{program.BINARY}" "$@"\n')
        unprivileged.chmod(0o755)
        monkeypatch.setattr(program, "BINARY", unprivileged)
    places = [folder, *folder.iterdir()]
    modes = [place.stat().st_mode for place in places]
    for place, mode in zip(places, modes):
        place.chmod(mode & 0o555)
    yield
    for place, mode in zip(places, modes):
        place.chmod(mode)


def test_a_read_only_folder_at_the_start_is_told_and_loses_nothing(tmp_path, monkeypatch):
    with Gateway(tmp_path / "gateway", away()) as gateway:
        filler = Filler(gateway)
        for _ in range(3):
            assert filler.send() == 202
        gateway.kill()
        folder = gateway.settings["DATA_DIR"]
        with read_only(folder, monkeypatch, tmp_path):
            gateway.start()
            assert gateway.wait() == 1
            assert str(folder) in gateway.stderr
            assert re.search(r"(?i)may only be read|permission denied", gateway.stderr), gateway.stderr
            assert "sender check" in gateway.stderr
            checked = run("sender", "check", folder=gateway.folder, settings=gateway.settings)
            assert checked.returncode == 1
            assert re.search(r"(?i)read-?only|permission denied", checked.stdout), checked.stdout + checked.stderr
        gateway.restart()
        check_all_arrive(gateway, tmp_path, {filler.device: filler.taken})


def test_a_disk_that_turns_read_only_refuses_and_loses_nothing(tmp_path):
    """As a kernel does to a file system in which it found a fault: every write fails from one moment on."""
    with Gateway(tmp_path / "gateway", away()) as gateway:
        filler = Filler(gateway)
        assert filler.send() == 202
        path = gateway.outbox_path
        files = [path, f"{path}-wal", f"{path}-journal"]
        with Strace(threads(gateway.process.pid), files, "pwrite64,write,ftruncate,fdatasync,fsync:error=EROFS"):
            for _ in range(3):
                assert filler.send() == 503
            assert gateway.get("/healthz").status_code == 200
            assert gateway.get("/readyz").status_code == 503
            assert gateway.status["queue"]["fault"]
        filler.send_until(202)
        check_all_arrive(gateway, tmp_path, {filler.device: filler.taken})


@pytest.mark.parametrize("damage", ["overwritten", "cut off", "without its head"])
def test_a_damaged_outbox_gives_what_is_left(tmp_path, damage):
    with Gateway(tmp_path / "gateway", away()) as gateway:
        filler = Filler(gateway, size=100, padding=400)
        for _ in range(20):
            assert filler.send() == 202
        assert gateway.terminate() == 0
        path = gateway.outbox_path
        size = path.stat().st_size
        assert size > MIB / 2, "what is damaged is not all of it"
        with open(path, "r+b") as file:
            if damage == "cut off":
                file.truncate(size * 2 // 3)
            else:
                file.seek(0 if damage == "without its head" else size // 2)
                file.write(os.urandom(50_000))
        gateway.restart()
        left = gateway.waiting
        assert int(gateway.wait_for_output(r"damaged.*\brecords=(\d+)")[1]) == left
        assert left > filler.taken / 3
        # The damaged file was put aside, and the gateway works.
        assert [other for other in path.parent.glob("outbox*") if other.stat().st_size >= size * 2 // 3 and other != path]
        gateway.must_take(numbered([0]), "another")
        with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path) as receiver:
            wait_for_sealed(receiver, left + 1)
            gateway.wait_until_empty()
            assert receiver.terminate() == 0
    found = counters(records(tmp_path))
    assert found["another"] == [0]
    assert len(found[filler.device]) == left
    assert found[filler.device] == sorted(set(found[filler.device]))


def test_a_queue_has_one_sender(tmp_path):
    with Gateway(tmp_path / "gateway", away()) as gateway:
        gateway.must_take(numbered(range(3)))
        second = Gateway(tmp_path / "gateway", away())
        try:
            second.start()
            assert second.wait() == 1
            assert "DATA_DIR" in second.stderr
        finally:
            second.kill()
        gateway.must_take(numbered(range(3, 6)))
        check_all_arrive(gateway, tmp_path, {"probe": 6})
