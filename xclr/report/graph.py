"""The page about a graph that a person looks at: how alike captions are, what targets come of it, who is near whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xclr.graph.neighbours import Halves
from xclr.graph.stages import ReportConfig
from xclr.report.graph_facts import (
    DEFAULT_TEMPERATURE,
    TEMPERATURES,
    captions_of,
    drawn_pairs,
    facts_of,
    largest,
    read,
    sheet,
    target_entropies,
)
from xclr.report.graph_truth import truth_of
from xclr.report.html import keep_fonts
from xclr.stage import Produced, Progress, Stage

PAGE = "graph.html"
SCRATCH = "matplotlib"
STEPS = 5


def run(stage: Stage[ReportConfig], out: Path, progress: Progress) -> Produced:
    """Stage "graph_report": captions, images, embeddings and graph -> graph.html, one file that needs nothing else.

    Pictures that were lost are left out of the sheet; without any the page says so.
    """
    config = stage.config
    from xclr.report import graph_page  # which needs what is here

    keep_fonts(out / SCRATCH)
    paths = {role: each.path for role, each in stage.inputs.items()}
    stored: Halves = np.load(paths["embeddings"] / "vectors.npy", mmap_mode="r")
    progress(0, STEPS)
    graph = read(paths["graph"] / "graph_knn.parquet")
    progress(1, STEPS)
    entropies = target_entropies(stored, graph.nodes, config.seed)
    progress(2, STEPS)
    random = drawn_pairs(stored, graph.nodes, config.seed)
    truth = truth_of(paths["captions"], stored, config.seed)
    questions = sheet(paths, graph.nodes, config.seed)
    progress(3, STEPS)
    groups = largest(graph)
    wanted = [graph.duplicates.rows.ravel(), graph.similar.rows.ravel(), *(each.rows for each in groups)]
    named = captions_of(paths["captions"], np.concatenate([*wanted, *(each.rows for each in questions)]))
    progress(4, STEPS)
    facts = facts_of(paths["graph"] / "graph_knn.parquet", graph, config.dataset) | (truth.facts if truth else {})
    html = graph_page.render(
        graph_page.Shown(facts, graph, entropies, random, groups, questions, named, truth), paths["images"]
    )
    (out / PAGE).write_text(html, encoding="utf-8")
    progress(STEPS, STEPS)
    stats = {
        "components": int(graph.components.max()) + 1,
        "largest_component": float(np.bincount(graph.components).max() / len(graph.nodes)),
        "effective_targets": float(np.exp(entropies[max(entropies)][TEMPERATURES.index(DEFAULT_TEMPERATURE)])),
        "shown": len(questions),
    }
    return Produced((PAGE,), stats | (truth.stats if truth else {}), (SCRATCH,))
