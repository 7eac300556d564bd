"""Proof files: fetched, written into a folder, and checked by `liotbchain verify`, which sees nothing else."""

import itertools
import json

import cases
from program import run

NAMES = itertools.count(1)


def write(folder, document, kind="json"):
    """Writes a proof file under a new name. A document that is not text yet becomes JSON."""
    path = folder / f"proof-{next(NAMES)}.{kind}"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def verify(folder, *documents, **options):
    """Checks documents, each as a file of its own. `options` are the command's; a text among them becomes a file."""
    files = [document if hasattr(document, "exists") else write(folder, document) for document in documents]
    arguments = []
    for name, value in options.items():
        if name != "genesis" and isinstance(value, str):
            value = write(folder, value, name)
        arguments += [f"--{name}"] if value is True else [f"--{name}", value]
    return run("verify", *files, *arguments, folder=folder)


def must_hold(folder, *documents, **options):
    """Checks documents of which each must prove what it is for, and returns what was said of them."""
    verdict = verify(folder, *documents, **options)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert "json" in options or headings(verdict.stdout, ": holds") == len(documents), verdict.stdout
    return verdict.stdout


def headings(said, end):
    """How many files it is said of, at the end of the line that begins with their names."""
    return sum(line.endswith(end) and not line.startswith(" ") for line in said.splitlines())


def findings(folder, *documents, **options):
    """What `--json` says of documents that hold."""
    return json.loads(must_hold(folder, *documents, json=True, **options))


def must_refuse(folder, word, *documents, **options):
    """Checks documents of which one must prove nothing, for a reason that names the essential."""
    verdict = verify(folder, *documents, **options)
    assert verdict.returncode == 3, verdict.stdout + verdict.stderr
    reasons = [line.split("REFUSED: ")[1] for line in verdict.stdout.splitlines() if "REFUSED: " in line]
    assert any(word in reason for reason in reasons), (word, verdict.stdout)
    return verdict.stdout


def send(receiver, devices, count=1):
    """Sends readings, the devices in turn, and returns the ids of their transactions once they stand in blocks."""
    signed = [(device, cases.reading()) for device, _ in zip(itertools.cycle(devices), range(count))]
    answer = receiver.send("[" + ",".join(device.item(text) for device, text in signed) + "]")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def got(receiver, path, **query):
    """Returns the text of an answer that must be there."""
    answer = receiver.get(path, params=query)
    assert answer.status_code == 200, (path, query, answer.text)
    return answer.text


def receipt(receiver, transaction):
    return got(receiver, f"/v1/transactions/{transaction}/receipt")


def consistency(receiver, **query):
    return got(receiver, "/v1/proofs/consistency", **query)


def status(receiver):
    return receiver.get("/v1/status").json()


def pages(receiver, key_id, **query):
    """Walks over a key's history by the links to what follows."""
    path = f"/v1/keys/{key_id}/transactions"
    answer = receiver.get(path, params=query)
    while True:
        assert answer.status_code == 200, answer.text
        yield answer.text
        if "next" not in answer.links:
            return
        answer = receiver.get(answer.links["next"]["url"])


def size_of(note):
    """Blocks that a checkpoint is of."""
    return int(note.split("\n")[1])
