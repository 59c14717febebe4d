"""The measuring of growth: of stages that run, and of made-up costs."""

import pytest

from tests.bench.scale import Cost, costs, drawing, exponent, exponents, grown, table


@pytest.mark.parametrize("power", [0.5, 1.0, 1.6, 2.0])
def test_the_exponent_is_the_power_by_which_costs_grow(power):
    sizes = [1_000, 3_000, 10_000]
    assert exponent(sizes, [7e-4 * size**power for size in sizes]) == pytest.approx(power)


def test_one_size_that_is_off_moves_the_exponent_by_little():
    assert 1.0 < exponent([1_000, 3_000, 10_000], [1.0, 3.0, 13.0]) < 1.2


def cost(rows, cpu_s, items=None):
    return Cost("graph", rows, rows if items is None else items, cpu_s, 1.0, 100.0)


def test_growth_is_beyond_the_start_over_the_largest_decade_in_what_a_stage_works_on():
    start = cost(500, 4.0)
    found = [start, cost(3_000, 900.0), cost(10_000, 4.1), cost(30_000, 20.0, 20_500), cost(100_000, 100.0, 60_500)]
    assert grown(found[::-1]) == [(20_000, 16.0), (60_000, 96.0)]  # 10,000 rows took hardly more than the start
    assert grown([start, cost(10_000, 8.0), cost(100_001, 80.0)]) == [(99_501, 76.0)]


def test_a_bar_is_met_or_not_by_the_exponent_of_its_stage():
    sizes = [500, 10_000, 30_000, 100_000]
    captions = [Cost("captions", size, size, 1e-4 * size, 1.0, 100.0) for size in sizes]
    graph = [Cost("graph", size, size, 1e-8 * size**2, 1.0, 100.0) for size in sizes]
    others = [Cost(stage, size, size, 5.0, 1.0, 100.0) for stage in ("images", "embeddings") for size in sizes]
    linear, quadratic = exponents([*captions, *graph, *others])  # of the others nothing can be told
    assert "captions" in linear.name and "100,000 rows" in linear.name
    assert linear.ratio == pytest.approx(1.0) and linear.ratio <= linear.bar == 1.1
    assert quadratic.ratio == pytest.approx(2.0, abs=0.05) and quadratic.ratio > quadratic.bar == 1.6


def test_a_picture_and_a_caption_have_a_cost_each():
    picture, caption = drawing(20)
    assert "64 pixels" in picture.name and "caption" in caption.name
    assert 1e3 * picture.ours > caption.ours > 0  # ms and us


def test_stages_are_measured_in_processes_of_their_own_and_found_again(tmp_path):
    first = list(costs(tmp_path, [300], "images"))
    assert [(each.stage, each.rows, each.items) for each in first] == [("captions", 300, 300), ("images", 300, 300)]
    assert all(each.cpu_s > 0 and each.wall_s > 0 and 50 < each.peak_mb < 2_000 for each in first)
    assert list(costs(tmp_path, [300], "images")) == first
    (images,) = (tmp_path / "artifacts" / "images").iterdir()
    (images / "manifest.json").unlink()  # as if it had been killed
    (images / "shards" / "00000").mkdir(parents=True)  # which a job that goes on would take for made
    again = list(costs(tmp_path, [300], "images"))
    assert again[0] == first[0] and again[1] != first[1] and again[1].items == 300
    assert [list(column.cells)[1] for column in table(again).columns[:3]] == ["images", "300", "300"]


def test_a_stage_that_cannot_be_made_says_why(tmp_path):
    assert len(list(costs(tmp_path, [300], "captions"))) == 1
    (path,) = (tmp_path / "artifacts" / "captions").glob("*/captions.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([255 - whole[200]]) + whole[201:])  # of the size that it had
    with pytest.raises(RuntimeError, match=r"images, 300 rows: .*captions\.parquet"):
        list(costs(tmp_path, [300], "images"))
