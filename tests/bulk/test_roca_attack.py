import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keyassay.bulk.roca_attack import RocaAttack, state_file
from keyassay.errors import KeyassayError
from keyassay.keymath import roca
from roca_keys import roca_key, root_of

SMALL = 22


def attack(tmp_path, seed=1, **options):
    p, q, _, _ = roca_key(seed, 256, SMALL)
    options = {"unit": 20, **options}
    return RocaAttack(p * q, tmp_path / "state.json", division=roca.plan(256, SMALL), **options), min(p, q)


def late_key():
    """A seed whose factor lies in the last third of the search."""
    for seed in range(100):
        p, q, a, b = roca_key(seed, 256, SMALL)
        search = roca.Search(p * q, roca.plan(256, SMALL))
        if root_of(search, (a, b)) > search.roots * 2 // 3:
            return seed
    raise AssertionError


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_workers_finds_the_same_factor_and_clears_up(tmp_path, jobs):
    run, factor = attack(tmp_path, late_key(), jobs=jobs)
    assert run.run() == factor
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_from_nothing_to_all(tmp_path):
    told = []
    run, _ = attack(tmp_path, late_key(), progress=lambda phase, share, items: told.append((phase, share, items)))
    run.run()
    assert [one[2] for one in told] == sorted({one[2] for one in told})
    assert told[0][2] == 20
    assert told[-1][1] == told[-1][2] / run.roots
    assert {one[0] for one in told} == {"classes"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_is_resumed_by_the_same_attack(tmp_path, jobs):
    seed = late_key()

    def interrupt(_phase, _share, items):
        if items >= 100:
            raise KeyboardInterrupt

    run, factor = attack(tmp_path, seed, jobs=jobs, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    done = json.loads((tmp_path / "state.json").read_text())["done"]
    assert done >= 100
    assert done % 20 == 0
    again, _ = attack(tmp_path, seed, jobs=jobs)
    assert again.done == done
    assert again.seconds_left < again.plan.seconds
    assert again.run() == factor


PROGRAM = """
import sys
from pathlib import Path
from keyassay.bulk import roca_attack
from keyassay.keymath import roca
roca_attack._INTERVAL = 0.0
if __name__ == "__main__":
    slow = lambda *_: __import__("time").sleep(0.05)
    roca_attack.RocaAttack(
        int(sys.argv[1]), Path(sys.argv[2]), division=roca.plan(256, 22), unit=5, jobs=int(sys.argv[3]), progress=slow
    ).run()
"""


def _of_program(program):
    """Processes whose command line names the folder of the program: itself and its workers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if str(program.parent).encode() in command and b"resource_tracker" not in command:
                found.append(process.name)
    return found


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_attack_is_resumed(tmp_path, jobs):
    seed = late_key()
    p, q, _, _ = roca_key(seed, 256, SMALL)
    state = tmp_path / "state.json"
    program = tmp_path / "attack.py"
    program.write_text(PROGRAM)
    running = subprocess.Popen([sys.executable, program, str(p * q), state, str(jobs)])
    try:
        deadline = time.monotonic() + 25
        while not state.exists() or json.loads(state.read_text())["done"] < 20:
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.wait()
    while _of_program(program):  # its workers notice
        assert time.monotonic() < deadline + 20
        time.sleep(0.05)
    done = json.loads(state.read_text())["done"]
    again, factor = attack(tmp_path, seed)
    assert again.done == done
    assert again.run() == factor


def test_a_whole_search_without_a_factor_says_so_and_is_not_repeated(tmp_path):
    run, _ = attack(tmp_path)
    run._search.n = run._search.n * 0 + ((1 << 255) | 1)  # no factor divides what it is asked about
    run.done = run.roots - 5
    assert run.run() is None
    again, _ = attack(tmp_path)
    assert again.done == again.roots
    assert again.run() is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modulus": "1234"}, "another attack"),
        ({"class_modulus": "23"}, "another attack"),
        ({"format": "keyassay-roca-attack-0"}, "another attack"),
        ({"done": -1}, "damaged"),
        ({"done": 10**9}, "damaged"),
        ({"done": "5"}, "damaged"),
        (None, "cannot be read"),
        ([], "another attack"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(tmp_path, change, says):
    run, _ = attack(tmp_path)
    run._write()
    state = tmp_path / "state.json"
    if change is None:
        state.write_text("{")
    else:
        state.write_text(json.dumps({**json.loads(state.read_text()), **change} if change else change))
    with pytest.raises(KeyassayError, match=says):
        attack(tmp_path)


def test_a_state_that_cannot_be_written_is_told(tmp_path):
    p, q, _, _ = roca_key(late_key(), 256, SMALL)
    (tmp_path / "file").write_text("")
    run = RocaAttack(p * q, tmp_path / "other" / "state.json", division=roca.plan(256, SMALL))
    run._state = tmp_path / "file" / "state.json"
    with pytest.raises(KeyassayError, match="cannot be written"):
        run._write()


def test_each_key_has_its_own_state_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert state_file(3 << 300).parent == tmp_path / "keyassay" / "attacks"
    assert state_file(3 << 300) != state_file(5 << 300)
