"""The exported data sets: the published layouts, the traps that each has, pictures that are what their names say."""

import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.kit.home import Home, make_home, one_thread
from tests.kit.stages import commit, no_progress
from xclr import captions, images, schema
from xclr.captions import stages as captions_stages
from xclr.captions.emoji import EMOJI_FILES, taxonomy
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree
from xclr.evaluation.export import write as export
from xclr.evaluation.export.drawings import SIDE, Scenery, bordered, bounding_box, plain, trained, variants
from xclr.evaluation.export.layouts import Emoji, data_sets, imagenet, imagenet9, mit_states, read_emoji, real, spelled
from xclr.evaluation.export.write import run
from xclr.evaluation.stages import EXPORT, ExportConfig
from xclr.images import read_pictures
from xclr.images import stages as images_stages
from xclr.recipe import DataConfig, Recipe
from xclr.stage import Stage
from xclr.store import Store
from xclr.training.views import GROUPS, TEXTURE_SIDE, TEXTURES, premultiplied, texture_bank

TARS = ("imagenet", "imagenet9", "objectnet", "mit-states")
VARIANTS = {"original", "mixed_same", "mixed_rand", "mixed_next", "no_fg", "only_bg_b", "only_bg_t", "only_fg"}
ENOUGH = 3000  # emoji among which every trap is


@dataclass(frozen=True)
class Made:
    """An export, what it was made of, and what is in its tars."""

    home: Home
    out: Path
    stats: dict
    emoji: Emoji
    files: dict  # by data set: encoded files by name

    def text(self, dataset, name):
        return self.files[dataset][name].decode()

    def pictures(self, dataset):
        """The names of the pictures: their parts and the row."""
        names = [name for name in self.files[dataset] if name.lower().endswith((".jpeg", ".jpg", ".png"))]
        return [(name, name.split("/"), int(re.search(r"(\d+)\.\w+$", name)[1])) for name in names]


def small_home(folder, limit):
    """The artifacts that an export reads."""
    store, recipe = Store(folder), Recipe(name="part", data=DataConfig(limit=limit))
    found = commit(store, captions_stages.captions(recipe, store), captions.run)
    return Home(
        store, {"captions": found, "images": commit(store, images_stages.images(recipe, store, found)[-1], images.run)}
    )


def write(home, out, progress=no_progress, **config):
    """Run the stage."""
    out.mkdir()
    roles = {role: home.artifacts[role] for role in ("captions", "images")}
    with one_thread():
        produced = run(Stage(EXPORT, "export", ExportConfig(**{"background": 0.8} | config), roles), out, progress)
    assert {path.name for path in out.iterdir()} == set(produced.files)
    return produced.stats


def unpacked(path):
    """The files of a tar, in its order."""
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def make(home, out):
    stats = write(home, out)
    files = {name: unpacked(out / f"{name}.tar") for name in TARS}
    return Made(home, out, stats, read_emoji(home.artifacts["captions"], home.artifacts["images"]), files)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def few(home, tmp_path_factory):
    return make(home, tmp_path_factory.mktemp("few") / "out")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return make(small_home(folder / "home", ENOUGH), folder / "out")


@pytest.fixture(scope="module")
def drawn(made):
    """(rows, premultiplied pictures, groups kept, scenery) of the pictures of ImageNet-9."""
    rows = torch.tensor(sorted({row for *_, row in made.pictures("imagenet9")}))
    kept = torch.tensor([group for group, name in enumerate(made.emoji.names.groups) if name != "symbols"])
    assert len(kept) == GROUPS - 1
    pixels = premultiplied(read_pictures(made.home.paths["images"], rows.numpy(), SIDE))
    return rows, pixels, kept, Scenery(torch.from_numpy(made.emoji.group), 0)


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def texture_of(picture, transparent):
    """(group, texture) of the background [3, s, s] that is seen where a picture is transparent [s, s]."""
    spare = TEXTURE_SIDE - SIDE + 1
    places = torch.nonzero(transparent)[::31]
    seen = picture[:, places[:, 0], places[:, 1]]  # [3, p]
    best = []
    for texture in texture_bank():
        cuts = texture.unfold(1, SIDE, 1).unfold(2, SIDE, 1)[..., places[:, 0], places[:, 1]]  # [3, spare, spare, p]
        assert cuts.shape[1:3] == (spare, spare)
        best.append(float((cuts - seen[:, None, None]).abs().amax(dim=(0, 3)).min()))
    nearest = int(np.argmin(best))
    assert best[nearest] < 1e-6 < np.partition(best, 1)[1]
    return divmod(nearest, TEXTURES)


# the layouts


@pytest.mark.parametrize("limit", [400, None])
def test_the_taxonomy_names_what_the_records_number(limit):
    rows = pa.concat_tables([pq.read_table(path, columns=["group", "subgroup"]) for path in EMOJI_FILES])
    names = taxonomy(DataConfig(limit=limit))
    every = [sorted(set(rows[column].to_pylist())) for column in ("subgroup", "group")]
    assert [list(each) for each in names] == every if limit is None else set(names.groups) < set(every[1])
    for record in captions.reader_of("emoji").captions(DataConfig(limit=limit)):
        assert names.subgroups[record["subgroup"]] in every[0]
        if record["caption"] in {"red heart", "guitar"}:
            subgroup, group = names.subgroups[record["subgroup"]], names.groups[record["group"]]
            assert (subgroup, group) in {("heart", "smileys-emotion"), ("musical-instrument", "objects")}


def test_every_file_has_its_place(made):
    patterns = {
        "imagenet": r"LOC_synset_mapping\.txt|train/(n\d{8})/\1_\d+\.JPEG|val/n\d{8}/ILSVRC2012_val_\d{8}\.JPEG",
        "imagenet9": r"in_to_in9\.json|\w+/val/\d\d_[a-z-]+/\d+\.JPEG",
        "objectnet": r"objectnet-1\.0/(images/\w+/\d+\.png|mappings/(\w+\.json|imagenet_to_label_2012_v2))",
        "mit-states": r"release_dataset/images/\S+ \S+/\d+\.jpg",
    }
    for dataset, pattern in patterns.items():
        names = list(made.files[dataset])
        assert names == sorted(names)
        assert [name for name in names if not re.fullmatch(pattern, name)] == []
        assert len(made.pictures(dataset)) == made.stats[dataset] > 0
        with tarfile.open(made.out / f"{dataset}.tar") as tar:
            entries = {(each.mtime, each.uid, each.gid, each.uname, each.gname, each.mode, each.type) for each in tar}
        assert entries == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


def test_every_picture_is_rgb_and_of_the_sources_size_without_loss_of_colour(few):
    for dataset in TARS:
        for name, *_ in few.pictures(dataset):
            picture = Image.open(io.BytesIO(few.files[dataset][name]))
            assert (picture.mode, picture.size) == ("RGB", (52, 52) if dataset == "objectnet" else (48, 48))
            assert picture.format == ("PNG" if dataset == "objectnet" else "JPEG")
            if picture.format == "JPEG":
                assert all((across, down) == (1, 1) for _, across, down, _ in picture.layer)


def test_imagenets_classes_are_the_subgroups_that_are_trained_on(made):
    lines = [line.split(" ", 1) for line in made.text("imagenet", "LOC_synset_mapping.txt").splitlines()]
    wnids, names = zip(*lines, strict=True)
    assert list(wnids) == sorted(set(wnids))
    assert ("n90000000", "alphanum") in zip(wnids, names, strict=True)
    trained_on = set()
    for name, (split, wnid, _), number in made.pictures("imagenet"):
        row = int(made.emoji.of("pictures")[number - 1]) if split == "val" else number
        assert made.emoji.split[row] == ("pictures" if split == "val" else "train"), name
        assert names[wnids.index(wnid)] == made.emoji.names.subgroups[made.emoji.subgroup[row]].replace("-", " ")
        trained_on |= {wnid} if split == "train" else set()
    assert trained_on == set(wnids)
    assert made.stats["classes"] == len(wnids)


def test_validation_pictures_are_numbered_by_row_and_not_by_folder(made):
    val = [(wnid, number) for _, (split, wnid, _), number in made.pictures("imagenet") if split == "val"]
    numbers = [number for _, number in val]
    assert sorted(numbers) == list(range(1, len(made.emoji.of("pictures")) + 1))
    assert numbers != sorted(numbers)  # in the order of the folders


def test_a_class_that_is_not_trained_on_leaves_its_validation_pictures_out(made):
    rows = made.emoji.of("pictures")
    lost = made.emoji.subgroup[rows[0]]
    split = made.emoji.split.copy()
    split[(made.emoji.subgroup == lost) & (split == "train")] = "unused"
    less = replace(made.emoji, split=split)
    assert set(rows) - set(less.validation) == set(rows[made.emoji.subgroup[rows] == lost])
    layout = imagenet(less, plain)
    assert len(layout.texts["LOC_synset_mapping.txt"].splitlines()) == made.stats["classes"] - 1
    assert not any(less.wnid(rows[0]) in name for name in layout.drawings[0].names)
    assert len(real(less)) == len(less.validation) == sum(name.startswith("val/") for name in layout.drawings[0].names)
    mapping = json.loads(imagenet9(less, Scenery(torch.from_numpy(less.group), 0)).texts["in_to_in9.json"])
    assert list(mapping) == [str(index) for index in range(made.stats["classes"] - 1)]


def test_real_lists_every_class_that_the_words_name(made):
    lists = json.loads((made.out / "real.json").read_text())
    names = made.emoji.classes
    rows = made.emoji.validation
    assert len(lists) == len(rows) == made.stats["real"]
    for row, labels in zip(rows, lists, strict=True):
        own = made.emoji.name(row)
        said = set(" ".join([made.emoji.captions[row], *made.emoji.tags[row]]).lower().split())
        assert own in [names[each] for each in labels] or own.startswith("other-")
        for other in {names[each] for each in labels} - {own}:
            assert set(other.split("-")) <= {word.strip(":,.!“”") for word in said}
    assert made.stats["real_empty"] == lists.count([]) > 0
    assert any(len(labels) > 1 for labels in lists)
    hearts = [lists[at] for at, row in enumerate(rows) if made.emoji.captions[row] == "yellow heart"]
    assert hearts
    assert all([names[each] for each in labels] == ["emotion", "heart"] for labels in hearts)


def test_imagenet9_has_equally_many_pictures_in_each_variant_and_classes_of_no_group(made):
    folders = defaultdict(set)
    for _, (variant, val, folder, _), row in made.pictures("imagenet9"):
        assert val == "val"
        folders[variant].add((folder, row))
    assert set(folders) == VARIANTS
    assert len(set(map(frozenset, folders.values()))) == 1
    mapping = json.loads(made.text("imagenet9", "in_to_in9.json"))
    assert list(mapping) == [str(index) for index in range(made.stats["classes"])]
    assert set(mapping.values()) == set(range(-1, 7))
    for folder, row in folders["original"]:
        number, group = folder.split("_", 1)
        assert group == made.emoji.names.groups[made.emoji.group[row]] != "symbols"
        assert mapping[str(made.emoji.classes.index(made.emoji.name(row)))] == int(number)
    outside = {name for index, name in enumerate(made.emoji.classes) if mapping[str(index)] == -1}
    assert {"arrow", "geometric", "zodiac"} <= outside
    assert "heart" not in outside


def test_a_group_without_pictures_is_none_of_imagenet9s_classes(few):
    mapping = json.loads(few.text("imagenet9", "in_to_in9.json"))
    folders = sorted({parts[2] for _, parts, _ in few.pictures("imagenet9")})
    assert [folder[:2] for folder in folders] == [f"{index:02d}" for index in range(len(folders))]
    assert set(mapping.values()) == set(range(-1, len(folders)))
    assert "activities" in few.emoji.names.groups
    assert not any("activities" in folder for folder in folders)
    assert mapping[str(few.emoji.classes.index("event"))] == -1


def test_objectnets_mappings_lead_to_imagenets_classes(made):
    tables = {
        name: json.loads(made.text("objectnet", f"objectnet-1.0/mappings/{name}.json"))
        for name in ("folder_to_objectnet_label", "objectnet_to_imagenet_1k", "pytorch_to_imagenet_2012_id")
    }
    lines = made.text("objectnet", "objectnet-1.0/mappings/imagenet_to_label_2012_v2").splitlines()
    number = {int(value): int(key) for key, value in tables["pytorch_to_imagenet_2012_id"].items()}
    assert sorted(number) == sorted(number.values()) == list(range(made.stats["classes"]))
    assert any(key != value for key, value in number.items())
    spoken = {line: made.emoji.classes[number[place]] for place, line in enumerate(lines)}
    assert all(line == name.replace("-", " ") for line, name in spoken.items())
    folders, equivalents = tables["folder_to_objectnet_label"], tables["objectnet_to_imagenet_1k"]
    assert {parts[2] for _, parts, _ in made.pictures("objectnet")} == set(folders)
    hands = [spoken[line] for line in equivalents[folders["hand"]].split("; ")]
    assert len(hands) > 1
    assert all(name.startswith("hand-") for name in hands)
    for _, parts, row in made.pictures("objectnet"):
        assert made.emoji.split[row] == "vendor"
        own, label = made.emoji.name(row), folders[parts[2]]
        if own.startswith("other-"):
            assert label not in equivalents
        elif own in made.emoji.classes:
            assert own in [spoken[line] for line in equivalents[label].split("; ")]
    assert {"other_symbol", "other_object"} & set(folders)


def test_mit_states_has_nouns_of_several_adjectives_and_folders_without_one(made):
    adjectives, alone = defaultdict(set), set()
    for _, parts, row in made.pictures("mit-states"):
        adjective, noun = parts[2].split(" ")
        assert made.emoji.split[row] in {"pictures", "concepts", "vendor"}
        if adjective == "adj":
            assert spelled(made.emoji.captions[row]) == [noun]
            alone.add(noun)
        else:
            assert spelled(made.emoji.captions[row]) == [adjective, noun]
            adjectives[noun].add(adjective)
    assert alone
    assert alone <= set(adjectives)
    assert all(len(several) > 1 for several in adjectives.values())
    left_out = set(made.emoji.of("pictures", "concepts", "vendor")) - {row for *_, row in made.pictures("mit-states")}
    for words in (spelled(made.emoji.captions[row]) for row in left_out):
        assert len(words) > 2 or words[-1] not in adjectives


def test_few_emoji_may_have_no_states(few):
    assert few.stats["mit-states"] == 0
    assert few.files["mit-states"] == {}
    assert mit_states(few.emoji).size == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("red heart", ["red", "heart"]),
        ("person: bald", ["person", "bald"]),
        ("four o’clock", ["four", "o'clock"]),
        ("Mrs. Claus", ["mrs", "claus"]),
        ("ON! arrow", ["on", "arrow"]),
        ("up-down arrow", ["up-down", "arrow"]),
        ("Japanese “open for business” button", ["japanese", "open", "for", "business", "button"]),
        ("piñata", ["piñata"]),
        ("keycap: #", ["keycap"]),
        ("a - b", ["a", "b"]),
    ],
)
def test_words_have_no_punctuation_but_their_own(text, words):
    assert spelled(text) == words


# the drawings


def test_the_red_border_is_what_a_crop_of_two_pixels_takes_away(made):
    files = made.pictures("objectnet")[::9]
    rows = np.array([row for *_, row in files])
    expected = plain(premultiplied(read_pictures(made.home.paths["images"], rows, SIDE)), torch.from_numpy(rows))
    for (name, *_), drawing in zip(files, expected, strict=True):
        framed = decoded(made.files["objectnet"][name]).copy()
        np.testing.assert_array_equal(framed[2:-2, 2:-2], (255 * drawing).round().byte().permute(1, 2, 0).numpy())
        framed[2:-2, 2:-2] = (255, 0, 0)
        assert (framed == (255, 0, 0)).all()


def test_the_frame_is_around_each_picture_of_a_batch(drawn):
    rows, pictures, *_ = drawn
    framed = bordered(pictures[:3], rows[:3])
    assert framed.shape == (3, 3, 52, 52)
    torch.testing.assert_close(framed[:, :, 2:-2, 2:-2], plain(pictures[:3], rows[:3]))


def test_the_background_is_a_texture_on_a_share_of_the_pictures_and_one_colour_on_the_others(drawn):
    rows, pictures, _, scenery = drawn
    textured, coloured, mixed = (trained(scenery, share)(pictures, rows) for share in (1.0, 0.0, 0.5))
    own = pictures[:, :3] + (1 - pictures[:, 3:]) * scenery.own(rows)
    torch.testing.assert_close(textured, own)
    for picture, drawing in zip(pictures, coloured, strict=True):
        behind = drawing[:, picture[3] == 0]
        assert behind.numel() == 0 or float(behind.std(dim=1).max()) < 1e-6
    which = torch.stack([(mixed == each).flatten(1).all(1) for each in (textured, coloured)])
    assert which.any(0).all()
    assert 0.35 < which[0].float().mean() < 0.65


@pytest.mark.slow
def test_the_mixed_variants_show_the_textures_of_the_groups_that_their_names_say(drawn):
    rows, pictures, kept, scenery = drawn
    open_ones = torch.nonzero((pictures[:, 3] == 0).flatten(1).float().mean(1) > 0.4).flatten()[::5][:6]
    assert len(open_ones) == 6
    found = {}
    for name, draw in variants(scenery, kept).items():
        if name == "original" or name.startswith("mixed"):
            drawings = draw(pictures[open_ones], rows[open_ones])
            found[name] = [
                texture_of(drawing, picture[3] == 0)
                for drawing, picture in zip(drawings, pictures[open_ones], strict=True)
            ]
    ring = kept.tolist()
    for own, same, random, following, row in zip(*found.values(), rows[open_ones], strict=True):
        assert own[0] == same[0] == int(scenery.groups[row])
        assert own[1] != same[1]
        assert random[0] in set(ring) - {own[0]}
        assert following[0] == ring[(ring.index(own[0]) + 1) % len(ring)]


def test_the_random_group_is_fixed_by_the_row_never_the_own_and_any_of_the_others(drawn):
    _, _, kept, scenery = drawn
    rows = torch.nonzero(torch.isin(scenery.groups, kept)).flatten()
    nothing = torch.zeros(len(rows), 4, SIDE, SIDE)
    draw = variants(scenery, kept)["mixed_rand"]
    hues = texture_bank().unflatten(0, (GROUPS, TEXTURES)).mean(dim=(1, 3, 4))  # [group, 3]
    random = torch.cdist(draw(nothing, rows).mean(dim=(2, 3)), hues).argmin(1)
    assert not (random == scenery.groups[rows]).any()
    assert set(random.tolist()) == set(kept.tolist())
    some = torch.arange(0, len(rows), 7)
    torch.testing.assert_close(draw(nothing[some], rows[some]), draw(nothing, rows)[some], rtol=0, atol=0)


def test_what_is_blacked_out_is_the_foreground_its_box_or_all_but_it(drawn):
    rows, pictures, kept, scenery = drawn
    made = {name: draw(pictures, rows) for name, draw in variants(scenery, kept).items()}
    alpha, box = pictures[:, 3:], bounding_box(pictures)
    shown, hidden = ((alpha == level).expand_as(made["original"]) for level in (0, 1))
    assert (made["only_fg"][shown] == 0).all()
    torch.testing.assert_close(made["only_fg"][hidden], made["original"][hidden])
    assert (made["no_fg"][hidden] == 0).all()
    torch.testing.assert_close(made["no_fg"][shown], made["original"][shown])
    torch.testing.assert_close(made["no_fg"] + made["only_fg"], made["original"])
    inside = box.expand_as(shown)
    assert (made["only_bg_b"][inside] == 0).all()
    for name in ("only_bg_b", "only_bg_t"):
        torch.testing.assert_close(made[name][~inside], made["original"][~inside])
    tiles, own = made["only_bg_t"].mean(dim=(2, 3)), scenery.own(rows).mean(dim=(2, 3))
    assert (tiles - own).abs().mean() < 0.05  # of the same texture
    assert ((made["only_bg_t"] - scenery.own(rows))[inside].abs() > 0.01).float().mean() > 0.8  # elsewhere in it


def test_the_bounding_box_is_pillows(drawn):
    _, pictures, *_ = drawn
    for picture, box in zip(pictures[::4], bounding_box(pictures)[::4, 0], strict=True):
        left, top, right, bottom = Image.fromarray((255 * picture[3]).round().byte().numpy()).getbbox()
        expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(box, expected)


def test_the_foreground_alone_is_black_around_it_in_the_file_too(made, drawn):
    rows, pictures, *_ = drawn
    alpha = dict(zip(rows.tolist(), pictures[:, 3], strict=True))
    checked = 0
    for name, parts, row in made.pictures("imagenet9"):
        if parts[0] == "only_fg":
            blocks = alpha[row].unfold(0, 8, 8).unfold(1, 8, 8).amax(dim=(2, 3)) == 0  # that a JPEG codes alone
            outside = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
            assert (decoded(made.files["imagenet9"][name])[outside] == 0).all(), name
            checked += int(outside.sum())
    assert checked > 10_000


# the stage


def test_running_twice_gives_the_same_bytes_however_many_are_drawn_at_once(few, home, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "CHUNK", 7)
    told = []
    stats = write(home, tmp_path / "again", lambda done, total, ok=None: told.append((done, total)))
    assert stats == few.stats
    for path in few.out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    total = sum(stats[name] for name in TARS)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {all_ for _, all_ in told} == {total} == {told[-1][0]}


def test_another_seed_draws_other_backgrounds_of_the_same_pictures(few, home, tmp_path):
    write(home, tmp_path / "other", seed=1)
    for dataset in TARS:
        other = unpacked(tmp_path / "other" / f"{dataset}.tar")
        assert list(other) == list(few.files[dataset])
        changed = {name.split("/")[0] for name in other if other[name] != few.files[dataset][name]}
        assert changed == {
            "imagenet": {"train", "val"},
            "imagenet9": VARIANTS - {"only_fg"},
        }.get(dataset, set())
    assert (tmp_path / "other" / "real.json").read_text() == (few.out / "real.json").read_text()


def test_imagenets_validation_pictures_are_the_originals_of_imagenet9(few, home, tmp_path):
    write(home, tmp_path / "textured", background=1.0)
    val = unpacked(tmp_path / "textured" / "imagenet.tar")
    originals = {row: name for name, parts, row in few.pictures("imagenet9") if parts[0] == "original"}
    for number, row in enumerate(few.emoji.validation.tolist(), start=1):
        if row in originals:
            name = f"val/{few.emoji.wnid(row)}/ILSVRC2012_val_{number:08d}.JPEG"
            assert val[name] == few.files["imagenet9"][originals[row]]


def test_another_source_is_refused(home, tmp_path):
    (tmp_path / "pictures.csv").write_text("caption,image\na dog,dog.png\na cat,cat.png\n")
    store = Store(tmp_path / "home")
    recipe = Recipe(name="mine", data=DataConfig(source="table", path=tmp_path / "pictures.csv"))
    table = commit(store, captions_stages.captions(recipe, store), captions.run)
    with pytest.raises(DataError, match=r"(?s)pictures of table.*data\.source: emoji"):
        read_emoji(table, home.artifacts["images"])


def test_without_pictures_there_is_nothing_to_export(home, tmp_path):
    lost = home.artifacts["images"]
    table = pq.read_table(lost.path / "images.parquet")
    status = table.schema.get_field_index("status")
    table = table.set_column(status, table.schema.field(status), pa.array(["decode"] * table.num_rows))
    pq.write_table(table, tmp_path / "images.parquet")
    with pytest.raises(DataError, match=r"400 emoji with 0 pictures .*\n.*data\.limit"):
        read_emoji(home.artifacts["captions"], replace(lost, path=tmp_path))


# the readers of the published data sets


def read(dataset, path):
    """What a reader finds, as plain values."""
    found = READERS[dataset].read(Tree.open(path))
    return found.items.to_pylist(), list(found.classes), list(found.mapping)


def by_name(items):
    return {each["name"]: each for each in items}


@pytest.mark.parametrize("dataset", ["imagenet", "real", "imagenet9", "objectnet"])
def test_data_sets_of_few_emoji_can_be_read(few, dataset):
    items, *_ = read(dataset, few.out / ("real.json" if dataset == "real" else f"{dataset}.tar"))
    assert len(items) <= few.stats[dataset]
    assert items


@pytest.mark.parametrize("dataset", TARS)
def test_a_tar_and_the_folder_that_it_unpacks_to_are_read_alike(made, dataset, tmp_path):
    with tarfile.open(made.out / f"{dataset}.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    packed = read(dataset, made.out / f"{dataset}.tar")
    assert packed == read(dataset, tmp_path)
    assert packed[0]


def test_imagenets_reader_finds_every_picture_under_its_class(made):
    items, classes, _ = read("imagenet", made.out / "imagenet.tar")
    assert len(classes) == made.stats["classes"]
    assert Counter(each["split"] for each in items) == {
        "train": len(made.emoji.of("train")),
        "val": len(made.emoji.validation),
    }
    found = by_name(items)
    for name, (split, *_), number in made.pictures("imagenet"):
        row = int(made.emoji.validation[number - 1]) if split == "val" else number
        assert found[name]["targets"] == [made.emoji.classes.index(made.emoji.name(row))]


def test_reals_reader_finds_the_lists(made):
    items, *_ = read("real", made.out / "real.json")
    lists = json.loads((made.out / "real.json").read_text())
    assert [each["targets"] for each in sorted(items, key=lambda each: each["name"])] == lists


def test_imagenet9s_reader_finds_variants_and_mapping(made):
    items, _, mapping = read("imagenet9", made.out / "imagenet9.tar")
    assert mapping == list(json.loads(made.text("imagenet9", "in_to_in9.json")).values())
    assert set(Counter(each["split"] for each in items).values()) == {made.stats["imagenet9"] // len(VARIANTS)}
    assert {each["split"] for each in items} == VARIANTS
    found = by_name(items)
    for name, (variant, _, folder, _), _ in made.pictures("imagenet9"):
        assert (found[name]["split"], found[name]["targets"]) == (variant, [int(folder[:2])])


def test_objectnets_reader_finds_the_pictures_with_an_equivalent_and_all_that_is_right(made):
    items, *_ = read("objectnet", made.out / "objectnet.tar")
    expected = {}
    for name, _, row in made.pictures("objectnet"):
        own = made.emoji.name(row)
        alike = [each for each in made.emoji.classes if each == own or own[:5] == each[:5] == "hand-"]
        right = [] if own.startswith("other-") else sorted(made.emoji.classes.index(each) for each in alike)
        expected[name] = right
    found = {each["name"]: sorted(each["targets"]) for each in items if each["targets"]}
    assert found == {name: right for name, right in expected.items() if right}
    assert any(len(right) > 1 for right in found.values())
    assert len(found) < len(expected)


def test_mit_states_reader_finds_objects_and_attributes_and_skips_adj(made):
    items, *_ = read("mit-states", made.out / "mit-states.tar")
    names = {name for name, parts, _ in made.pictures("mit-states") if not parts[2].startswith("adj ")}
    assert {each["name"] for each in items} == names
    assert all(each["attribute"] is not None and len(each["targets"]) == 1 for each in items)
    nouns = {name.split("/")[2].split(" ")[1] for name in names}
    pairs = {(each["name"].split("/")[2].split(" ")[1], each["targets"][0]) for each in items}
    assert len(pairs) == len(nouns)


def test_all_emoji_make_whole_data_sets(tmp_path):
    """By the names of their pictures, of which none is drawn."""
    store = Store(tmp_path / "home")
    found = commit(store, captions_stages.captions(Recipe(name="all", data=DataConfig()), store), captions.run)
    rows = [{"row_id": row, "status": "ok", "attempt": 1} for row in range(store.manifest(found).stats["rows"])]
    schema.write(pa.Table.from_pylist(rows, schema.IMAGES), tmp_path / "images.parquet", schema.IMAGES, {})
    emoji = read_emoji(found, replace(found, path=tmp_path))
    sets = {each.name: each for each in data_sets(emoji, ExportConfig(background=0.8))}
    assert {name: each.size for name, each in sets.items()} == {
        "imagenet": 9377, "imagenet9": 5440, "objectnet": 1402, "mit-states": 1069,
    }  # fmt: skip
    lists = real(emoji)
    assert (len(lists), lists.count([]), len(emoji.classes), len(emoji.of("pictures"))) == (784, 10, 95, 784)
    mapping = json.loads(sets["imagenet9"].texts["in_to_in9.json"])
    assert set(mapping.values()) == set(range(-1, 7))
    states = [name.split("/")[2] for drawing in sets["mit-states"].drawings for name in drawing.names]
    assert len({state.split(" ")[1] for state in states}) == 123
