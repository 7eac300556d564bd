"""The program as a person at a terminal meets it, and a script: commands, exit codes, what goes to which stream."""

import json
import re
import stat
import subprocess
import tomllib

import pytest

import cases
import mutants
import signer as keys
from program import ROOT, Program, Receiver, free_port, run, wait_until


def write_export(folder, export):
    path = folder / "chain.ndjson"
    path.write_bytes(export)
    return path


@pytest.fixture
def kept(tmp_path):
    """A folder whose store keeps a chain of three blocks, and no running program."""
    with Receiver(tmp_path) as receiver:
        for _ in range(3):
            receiver.send(f"[{keys.new_ed25519().item(cases.reading())}]")
        assert receiver.terminate() == 0
    return tmp_path


def test_version():
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    done = run("--version", folder=ROOT / "target", settings={"DATA_DIR": None})
    assert (done.returncode, done.stdout) == (0, f"liotbchain {manifest['workspace']['package']['version']}\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], *[[command, "--help"] for command in "demo receiver sender keys chain config".split()]]
)
def test_help_is_data(tmp_path, arguments):
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["recieve"], ["chain"], ["receiver", "--dificulty", "3"], ["receiver", "--difficulty", "99"], ["keys", "burn"]],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(tmp_path, arguments):
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr


def test_a_mistyped_flag_is_answered_with_a_guess(tmp_path):
    assert "--difficulty" in run("receiver", "--dificulty", "3", folder=tmp_path).stderr


# demo --------------------------------------------------------------------------------------------------------------


def demo(folder):
    settings = {f"{name}_LISTEN": f"127.0.0.1:{free_port()}" for name in ("RECEIVER", "SENDER")}
    settings["RECEIVER_URL"] = "http://" + settings["RECEIVER_LISTEN"]
    return Program("demo", folder=folder, settings=settings)


def height_of(folder):
    done = run("chain", "show", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["height"]


def test_demo_shows_blocks_and_goes_on_where_it_stopped(tmp_path):
    with demo(tmp_path) as first:
        for address in ("RECEIVER_LISTEN", "SENDER_LISTEN"):
            first.wait_for_output(re.escape(first.settings[address]))
        first.wait_for_output(r"curl ")
        first.wait_for_output(r"(?m)^block +2 ")
        assert first.interrupt() == 0, first.output
        assert "panicked" not in first.output
    height = height_of(tmp_path)
    assert height >= 2
    with demo(tmp_path) as second:
        second.wait_for_output(rf"(?m)^block +{height + 1} ")
        assert second.interrupt() == 0, second.output
    assert height_of(tmp_path) > height
    assert run("chain", "validate", folder=tmp_path).returncode == 0


@pytest.mark.parametrize("stop", [Program.terminate, Program.interrupt])
def test_servers_stop_when_asked(tmp_path, stop):
    with Receiver(tmp_path) as receiver:
        assert stop(receiver) == 0, receiver.output


def test_the_readmes_first_reading_becomes_a_block(tmp_path, receiver):
    """Runs the shell commands of the README, as they stand there, against a receiver on another port."""
    readme = (ROOT / "README.md").read_text()
    [commands] = [block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "openssl genpkey" in block]
    commands = commands.replace("127.0.0.1:5001", receiver.address)
    for _ in range(2):
        # The reading holds the second it was made in; the second time round it is sent again as it was.
        done = subprocess.run(["bash", "-euc", commands], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60)
        assert done.returncode == 0, done.stderr
        [item] = json.loads(done.stdout)["items"]
        assert item["status"] == "sealed"
        commands = commands.splitlines()[-1]
    assert len(receiver.chain()) == 2


# keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "p256"])
def test_keys_are_made_once_and_shown(tmp_path, kind):
    settings = {"SENDER_KEY": kind}
    assert run("keys", "show", folder=tmp_path, settings=settings).returncode == 1
    made = run("keys", "generate", folder=tmp_path, settings=settings)
    assert made.returncode == 0, made.stderr
    shown = run("keys", "show", folder=tmp_path, settings=settings)
    assert "-----BEGIN PUBLIC KEY-----" in shown.stdout
    assert "PRIVATE" not in made.stdout + made.stderr + shown.stdout + shown.stderr
    # Once more makes no other.
    run("keys", "generate", folder=tmp_path, settings=settings)
    assert run("keys", "show", folder=tmp_path, settings=settings).stdout == shown.stdout
    told = json.loads(run("keys", "show", "--json", folder=tmp_path, settings=settings).stdout)
    assert told["public_key"] in shown.stdout
    assert len(bytes.fromhex(told["key_id"])) == 32
    [path] = [path for path in (tmp_path / "data").iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")


# chain -------------------------------------------------------------------------------------------------------------


def test_chain_show_and_validate(kept):
    shown = run("chain", "show", folder=kept)
    assert shown.returncode == 0
    assert "3" in shown.stdout
    told = json.loads(run("chain", "show", "--json", folder=kept).stdout)
    assert told["height"] == 3
    assert len(bytes.fromhex(told["tip"])) == 32
    assert run("chain", "validate", folder=kept).returncode == 0
    verdict = json.loads(run("chain", "validate", "--json", folder=kept).stdout)
    assert verdict["valid"] is True


def test_export_is_data_and_talk_goes_elsewhere(kept):
    to_stdout = run("chain", "export", "--out", "-", folder=kept)
    assert to_stdout.returncode == 0
    assert [json.loads(line)["type"] for line in to_stdout.stdout.splitlines()][0] == "chain"
    to_file = run("chain", "export", "--out", "chain.ndjson", folder=kept)
    assert to_file.returncode == 0
    assert (kept / "chain.ndjson").read_text() == to_stdout.stdout


def test_commands_on_a_chain_make_none(tmp_path):
    for arguments in (["show"], ["validate"], ["export", "--out", "-"]):
        done = run("chain", *arguments, folder=tmp_path)
        assert done.returncode in (1, 4), (arguments, done.stdout)
        assert done.stderr
    assert not (tmp_path / "data/liotbchain.db").exists()


def test_an_invalid_import_exits_with_3(tmp_path):
    path = write_export(tmp_path, mutants.hash_above_the_target())
    assert run("chain", "import", path, folder=tmp_path).returncode == 3


def test_an_import_of_a_missing_file_exits_with_1(tmp_path):
    done = run("chain", "import", "nowhere.ndjson", folder=tmp_path)
    assert done.returncode == 1
    assert "nowhere.ndjson" in done.stderr


def test_an_unreachable_database_exits_with_4(tmp_path):
    settings = {"DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/none"}
    assert run("chain", "validate", folder=tmp_path, settings=settings).returncode == 4


# config ------------------------------------------------------------------------------------------------------------


def shown_settings(folder, *flags, **settings):
    done = run("config", "show", "--json", *flags, folder=folder, settings=settings)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["settings"]}


def test_settings_come_from_the_first_place_that_has_them(tmp_path):
    assert shown_settings(tmp_path)["DIFFICULTY"]["value"] == "2"
    (tmp_path / "liotbchain.toml").write_text("difficulty = 3\n")
    assert shown_settings(tmp_path)["DIFFICULTY"]["value"] == "3"
    (tmp_path / ".env").write_text("DIFFICULTY=4\n")
    assert shown_settings(tmp_path)["DIFFICULTY"]["value"] == "4"
    assert shown_settings(tmp_path, DIFFICULTY=5)["DIFFICULTY"]["value"] == "5"
    assert shown_settings(tmp_path, "--difficulty", "6", DIFFICULTY=5)["DIFFICULTY"]["value"] == "6"


def test_an_env_file_above_the_working_directory_is_found(tmp_path):
    (tmp_path / ".env").write_text("TRANSACTIONS_PER_BLOCK=7\n")
    below = tmp_path / "one/two"
    below.mkdir(parents=True)
    assert shown_settings(below)["TRANSACTIONS_PER_BLOCK"]["value"] == "7"


def test_config_show_hides_secrets(tmp_path):
    secret = "a-long-secret-token-0123456789"
    settings = {"API_TOKEN": secret, "DATABASE_URL": f"postgresql://user:{secret}@localhost/chain"}
    for arguments in (["show"], ["show", "--json"], ["check"], ["check", "--json"]):
        done = run("config", *arguments, folder=tmp_path, settings=settings)
        assert secret not in done.stdout + done.stderr
    assert "API_TOKEN" in run("config", "show", folder=tmp_path, settings=settings).stdout


def test_config_check_names_everything_that_is_wrong(tmp_path):
    assert run("config", "check", folder=tmp_path).returncode == 0
    wrong = {"DIFFICULTY": "17", "LOG_FORMAT": "xml"}
    done = run("config", "check", folder=tmp_path, settings=wrong)
    assert done.returncode == 2
    assert "DIFFICULTY" in done.stderr and "LOG_FORMAT" in done.stderr
    told = run("config", "check", "--json", folder=tmp_path, settings=wrong)
    assert told.returncode == 2
    assert len(json.loads(told.stdout)["problems"]) == 2


def test_logs_can_be_read_by_programs(tmp_path):
    with Receiver(tmp_path, LOG_FORMAT="json", LOG_LEVEL="debug") as receiver:
        receiver.send("[5]")
        wait_until("a log", lambda: receiver.stderr.strip())
        assert receiver.terminate() == 0
        logged = [line for line in receiver.stderr.splitlines() if line.startswith("{")]
        assert logged
        assert all(json.loads(line)["level"] for line in logged)
