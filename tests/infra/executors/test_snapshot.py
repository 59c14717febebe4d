"""Jobs run the library as it was when their run began."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from infra.executors import snapshot


def test_a_copy_is_made_once_for_each_state_of_the_code(tmp_path, monkeypatch):
    source = tmp_path / "checkout" / "xclr"
    (source / "__pycache__").mkdir(parents=True)
    (source / "a.py").write_text("A = 1")
    (source / "__pycache__" / "a.pyc").write_text("compiled")
    monkeypatch.setattr(snapshot, "PACKAGES", {"xclr": source})
    first = snapshot.freeze(tmp_path / "home")
    (source / "__pycache__" / "b.pyc").write_text("compiled too")
    assert snapshot.freeze(tmp_path / "home") == first
    assert sorted(path.name for path in first.rglob("*")) == ["a.py", "xclr"]
    (source / "a.py").write_text("A = 2")
    second = snapshot.freeze(tmp_path / "home")
    assert second != first and (first / "xclr" / "a.py").read_text() == "A = 1"


def test_many_at_once_agree_on_one_copy(tmp_path):
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(snapshot.freeze(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "code").iterdir()] == [found[0].name]


def test_a_program_that_starts_in_the_copy_imports_it(tmp_path):
    code = snapshot.freeze(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(code)}
    program = "import xclr.job, infra.stagejob as job; from xclr.recipe import recipe_names as names; "
    program += "print(xclr.__file__, job.__file__, len(names()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=code, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, also_ours, recipes = done.stdout.split()
    assert ours == f"{code}/xclr/__init__.py" and also_ours == f"{code}/infra/stagejob.py" and int(recipes) > 3
