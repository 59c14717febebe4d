"""WordNet for NLTK, made of the files that Debian's wordnet-base installs."""

import os
import shutil
from pathlib import Path

import nltk
import pytest

INSTALLED = Path("/usr/share/wordnet")
KINDS = {1: "noun", 2: "verb", 3: "adj", 4: "adv"}
FILES = {  # lexicographer files in their order, by kind
    "adj": "all pert", "adv": "all", "noun": "Tops act animal artifact attribute body cognition communication event "
    "feeling food group location motive object person phenomenon plant possession process quantity relation shape "
    "state substance time", "verb": "body change cognition communication competition consumption contact creation "
    "emotion motion perception possession social stative weather",
}  # fmt: skip
NAMES = [f"{kind}.{name}" for kind, names in FILES.items() for name in names.split()] + ["adj.ppl"]


def load(folder):
    """NLTK's reader over a copy in NLTK's layout; skips, or fails where CI is set, without the files."""
    if not (INSTALLED / "data.noun").is_file():
        reason = "WordNet is not installed: apt-get install wordnet-base"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    root = folder / "corpora" / "wordnet"
    root.mkdir(parents=True)
    for path in INSTALLED.iterdir():
        if path.name.startswith(("data.", "index.")) or path.suffix == ".exc":
            shutil.copyfile(path, root / path.name)
    for name in ("adj.exc", "adv.exc", "noun.exc", "verb.exc", "index.sense", "cntlist.rev"):
        (root / name).touch()
    numbers = {kind: number for number, kind in KINDS.items()}
    lines = (f"{number:02d}\t{name}\t{numbers[name.split('.')[0]]}" for number, name in enumerate(NAMES))
    (root / "lexnames").write_text("\n".join(lines) + "\n")
    nltk.data.path.insert(0, str(folder))
    from nltk.corpus import wordnet

    wordnet.ensure_loaded()
    return wordnet
