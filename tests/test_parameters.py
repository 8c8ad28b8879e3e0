"""A parameter file says what it means, or one message says everything that is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from helpers.errors import ParameterError
from helpers.parameters import parse_override, read_parameters

SHIPPED = sorted((Path(__file__).resolve().parents[1] / "params").glob("*.yaml"))

SMALL = {
    "name": "small",
    "cohort": {
        "source": "phantoms",
        "organs": {"liver": {"labels": [1]}},
        "attributes": {"sex": {"categories": ["female", "male"]}},
    },
    "models": [{"name": "ellipse", "kind": "prompt_only"}],
}


@pytest.fixture
def write(tmp_path):
    def write_file(raw) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
        return path

    return write_file


def fail(path: Path, overrides=None) -> str:
    with pytest.raises(ParameterError) as caught:
        read_parameters(path, overrides)
    return str(caught.value)


def test_small_file_is_read_with_its_defaults(write):
    parameters = read_parameters(write(SMALL))
    assert parameters.fairness.alpha == 0.05
    assert parameters.cohort.organ_ids() == {"liver": 1}


@pytest.mark.parametrize(("key", "value"), [("alpha", 0.5), ("power", 0.4), ("power", 1.0), ("permutations", 10)])
def test_settings_of_the_statistics_have_limits(write, key, value):
    assert f"fairness.{key}: must be" in fail(write(SMALL), {f"fairness.{key}": value})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_is_valid(path):
    assert read_parameters(path).name


def test_shipped_files_are_those_the_documents_name():
    assert {path.stem for path in SHIPPED} == {
        "amos", "bids", "btcv", "chaos", "demo", "dicom", "flare", "kits23", "kits23_annotators", "li2024", "template",
        "totalsegmentator", "totalsegmentator_example", "touchstone", "word",
    }  # fmt: skip


def test_the_primary_metric_is_one_that_is_measured(write):
    message = fail(write(SMALL | {"fairness": {"metrics": ["dice"], "primary": "nsd"}}))
    assert "primary names nsd, which is not among metrics: dice" in message


def test_unknown_key_names_key_file_and_what_is_allowed(write):
    message = fail(write(SMALL | {"fairness": {"alpa": 0.01}}))
    assert (
        "study.yaml: fairness.alpa: unknown key (did you mean alpha?); allowed under fairness: adjust,"
        " adjust_for_volume, alpha, bootstrap, " in message
    )


def test_unknown_key_in_a_list_entry_and_in_a_mapping_entry(write):
    raw = SMALL | {"models": [{"name": "m", "kind": "prompt_only", "prompt": {"jiter": 1}}]}
    assert (
        "models.0.prompt.jiter: unknown key (did you mean jitter?); allowed under models.0.prompt: draws, every, "
        in fail(write(raw))
    )
    message = fail(write(SMALL), {"cohort.organs.liver.labls": [1]})
    assert (
        "cohort.organs.liver.labls: unknown key (did you mean labels?); allowed under cohort.organs.liver: files, id,"
        in message
    )


def test_every_fault_is_listed_at_once_with_the_value_that_came(write):
    lines = fail(write(SMALL | {"seed": -1, "fairness": {"alpha": 3, "correction": "bonferoni"}})).splitlines()
    assert len(lines) == 3
    assert any("seed: must be greater than or equal to 0; got -1" in line for line in lines)
    assert any(
        "fairness.correction: must be 'holm', 'fdr_bh', 'max_t' or 'none'; got 'bonferoni'" in line for line in lines
    )


def test_faults_beside_an_unknown_key_are_listed_too(write):
    """Rules between keys are looked at only where each is known: what it was meant to be counts."""
    fairness = {"min_grup": 5, "metrics": ["dice"], "primary": "hd95"}
    lines = fail(write(SMALL | {"fairness": fairness, "titel": "T", "nonsense": 1, "seed": -1})).splitlines()
    told = [line.split("study.yaml: ", 1)[1] for line in lines]
    assert len(told) == 5, told
    for expected in (
        "titel: unknown key (did you mean title?)",
        "nonsense: unknown key; allowed under the top level",
        "fairness.min_grup: unknown key (did you mean min_group?)",
        "fairness: primary names hd95, which is not among metrics: dice",
        "seed: must be greater than or equal to 0; got -1",
    ):
        assert sum(line.startswith(expected) for line in told) == 1, expected


def test_a_required_key_under_a_wrong_name_is_not_missing(write):
    raw = {"nmae" if key == "name" else key: value for key, value in SMALL.items()}
    (line,) = fail(write(raw)).splitlines()
    assert "nmae: unknown key (did you mean name?)" in line


def test_an_override_is_blamed_for_its_own_faults_alone(write):
    path = write(SMALL | {"seed": -1})
    overrides = {"compute.wrkers": 1, "fairness.metrics": ["hd95"], "models.ellipse.kind": 3}
    lines = fail(path, overrides).splitlines()
    assert [line.split(": ")[0] for line in lines].count(str(path)) == 1
    assert any(line.startswith("-o compute.wrkers: unknown key (did you mean workers?)") for line in lines)
    assert any(line.startswith("-o fairness.metrics: ") and "metrics must be among" in line for line in lines)
    assert any(line.startswith("-o models.ellipse.kind: models.0") for line in lines)
    assert any(line.startswith(f"{path}: seed: must be") for line in lines)


def test_branches_of_a_union_are_one_line(write):
    (line,) = fail(write(SMALL), {"compute.workers": "many"}).splitlines()
    assert "compute.workers: must be a whole number" in line and "or 'cores'" in line and line.endswith("got 'many'")


def test_missing_section_and_wrong_shape(write):
    assert "models: required but missing" in fail(write({key: SMALL[key] for key in ("name", "cohort")}))
    assert "must hold keys and values" in fail(write("- a\n- b\n"))


def test_broken_yaml_and_a_key_given_twice(write):
    assert "is not valid YAML" in fail(write("name: [unclosed"))
    assert "appears twice" in fail(write("name: a\nname: b\n"))


def test_missing_file_says_where_to_start(tmp_path):
    assert "no such parameter file: correct the path, or copy params/template.yaml" in fail(tmp_path / "none.yaml")
    (tmp_path / "demo.yaml").touch()
    assert "dmo.yaml: no such parameter file (did you mean demo.yaml?): correct" in fail(tmp_path / "dmo.yaml")
    assert "is not a file: give the parameter file" in (said := fail(tmp_path)) and said.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cohort.organs.liver": {}}, "an organ needs `labels`"),
        ({"cohort.attributes.age": {"bins": [60, 40]}}, "strictly increasing"),
        ({"cohort.attributes.age": {"bins": [0, 40, 90], "labels": ["one"]}}, "labels must name 2 groups"),
        ({"cohort.attributes.age": {"bins": [0, 40], "categories": ["x"]}}, "either `categories` or `bins`"),
        ({"cohort.attributes.site": None}, "attribute 'site' has no default groups"),
        ({"cohort.attributes.sex": {"categories": []}}, "categories must name at least one group"),
        ({"cohort.attributes.sex": {"categories": ["a", "b", "a"]}}, "categories names a more than once: give every"),
        ({"cohort.attributes.age": {"bins": [0, 40, 90], "labels": ["x", "x"]}}, "labels names x more than once"),
        ({"cohort.attributes.bmi": {"bins": "who", "labels": ["x", "y"]}}, "'bmi': labels must name 4 groups, one for"),
        ({"cohort.attributes.age": {"bins": "who", "labels": list("wxyz")}}, "'age': labels must name 5 groups, one"),
        ({"cohort.attributes.egfr": {"bins": "who"}}, "'egfr': bins: who is for age and bmi alone: give the edges"),
        ({"cohort.attributes.number": {"categories": ["x"]}}, "attributes: 'number' is a column of segfair's own"),
        ({"cohort.attributes.reference": {"categories": ["x"]}}, "'reference' is a column of segfair's own"),
        ({"cohort.confounders": ["note"]}, "map it under cohort.columns (note_recorded: note)"),
        ({"cohort.confounders": ["group_sex"]}, "confounders: 'group_sex' is a column of segfair's own"),
        ({"cohort.organs.all": {"labels": [2]}}, "an organ cannot be called 'all', which names all organs pooled"),
        ({"fairness.metrics": ["dice", "nsd", "dice"]}, "metrics names dice more than once: name every metric once"),
        ({"cohort.attributes.sex": {"categories": [1, False]}}, "categories.0: must be text; got 1: put it in quotes"),
        ({"cohort.attributes.sex": {"categories": [1, False]}}, "categories.1: must be text; got False: put it in"),
        ({"cohort.values": {"sex": {1: "male"}}}, "cohort.values.sex.1: must be text; got 1: put it in quotes"),
        ({"cohort.attributes.sex": {"categories": [["a"]]}}, "categories.0: must be text; got ['a']"),
        ({"cohort.source": "table"}, "`path` is required"),
        ({"models": [{"name": "a", "kind": "x"}, {"name": "a", "kind": "x"}]}, "two models share one name"),
        ({"fairness.adjust": {"size": []}}, "fairness.adjust names size, not among cohort.attributes (sex"),
        (
            {"fairness.adjust": {"sex": ["race"]}},
            "fairness.adjust.sex names race: name other attributes or confounders",
        ),
        ({"metrics.tolerances_mm": {"spleen": 1.0}}, "names spleen, not among cohort.organs (liver)"),
        ({"fairness.metrics": ["iou"]}, "fairness.margin has no value for iou"),
        ({"name": "../evil"}, "name: must be up to 64 letters (A to Z), digits, - and _, beginning with a letter or"),
        ({"compute.device": "gpu"}, "compute.device: must be auto, cpu, cuda, cuda:1 or mps; got 'gpu'"),
        ({"fairness.alpha": "x"}, "fairness.alpha: must be a number; got 'x'"),
        ({"min_group": 5}, "min_group: unknown key (did you mean fairness.min_group?); allowed under the top level: "),
        (
            {"cohort.organs": {"a": {"labels": [1], "id": 3}, "b": {"labels": [2], "id": 3}}},
            "two organs share one `id`",
        ),
        ({"cohort.organs": {"a": {"labels": [1], "id": 3}, "b": {"labels": [2]}}}, "give every organ an `id`, or none"),
        (
            {"cohort.phantoms.planted.effects": [{"attribute": "sex", "above": 3, "erosion_mm": 1}]},
            "use `group` with sex",
        ),
        ({"cohort.path": "people.csv"}, "`path` has no use when source is 'phantoms'"),
        ({"cohort.phantoms.planted.effects": [{"attribute": "age", "erosion_mm": 1}]}, "needs either `group`"),
    ],
)
def test_each_rule_fires(write, change, expected):
    assert expected in fail(write(SMALL), change)


def test_annotators_are_people_and_at_least_two(write):
    people = [{"name": name, "kind": "precomputed", "path": "{scan}.nii.gz", "annotator": True} for name in "ab"]
    assert [model.annotator for model in read_parameters(write(SMALL | {"models": people})).models] == [True, True]
    alone = fail(write(SMALL | {"models": [people[0], *SMALL["models"]]}))
    assert "a alone is marked `annotator: true`" in alone and "two or more" in alone
    drawn_by_a_model = {"name": "ellipse", "kind": "prompt_only", "annotator": True}
    assert "needs kind precomputed" in fail(write(SMALL | {"models": [*people, drawn_by_a_model]}))


def test_planted_masks_are_marked_and_ready_made(write):
    marked = {"name": "moved", "kind": "precomputed", "path": "anywhere/{scan}.nii.gz", "planted": True}
    (model,) = read_parameters(write(SMALL | {"models": [marked]})).models
    assert model.planted
    told = fail(write(SMALL | {"models": [marked | {"kind": "prompt_only", "path": None}]}))
    assert "planted: true needs kind precomputed (masks with planted errors); got kind 'prompt_only'" in told


def test_overrides_reach_sections_that_the_file_leaves_out_and_models_by_name(write):
    parameters = read_parameters(write(SMALL), {"fairness.alpha": 0.01, "models.ellipse.prompt.jitter": 0.1})
    assert parameters.fairness.alpha == 0.01
    assert parameters.models[0].prompt.jitter == 0.1


def test_override_into_a_value_or_an_unknown_entry_is_refused(write):
    assert "seed is a value, not a section" in fail(write(SMALL | {"seed": 4}), {"seed.deep.er": 1})
    assert "no entry 'nobody' in a list of 1" in fail(write(SMALL), {"models.nobody.kind": "sam"})


def test_parse_override_reads_yaml_values():
    assert parse_override("fairness.alpha=0.01") == ("fairness.alpha", 0.01)
    assert parse_override("cohort.confounders=[site, scanner]") == ("cohort.confounders", ["site", "scanner"])
    with pytest.raises(ParameterError, match=r"must look like fairness\.alpha=0\.01"):
        parse_override("fairness.alpha")
    with pytest.raises(ParameterError, match="not valid YAML"):
        parse_override("a=[1")


def test_names_and_labels_that_fit_are_allowed(write):
    attributes = {
        "modality": {"categories": ["CT", "MR"]},
        "age": {"bins": "who", "labels": ["a", "b", "c", "d", "e"]},
        "bmi": {"bins": "who", "labels": ["a", "b", "c", "d"]},
        "centre": {"categories": ["one"]},
    }
    assert list(read_parameters(write(SMALL), {"cohort.attributes": attributes}).cohort.attributes) == list(attributes)


def test_infinite_bins_are_allowed(write):
    parameters = read_parameters(write(SMALL), {"cohort.attributes.age": {"bins": [60, math.inf]}})
    assert parameters.cohort.attributes["age"].bins == [60, math.inf]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"kind": "nnunet", "folder": "here", "fold": [0]},
            r"models\.0\.fold: unknown key \(did you mean folds\?\); .*folder.*trust",
        ),
        ({"kind": "nnunet"}, r"models\.0\.folder: required but missing"),
        ({"kind": "sam", "folder": "here"}, r"models\.0\.folder: unknown key; allowed under models\.0: annotator, "),
    ],
)
def test_a_kind_with_keys_of_its_own_has_its_own_section(write, model, said):
    """A wrong key is told with the keys of that kind, at its place in the file."""
    with pytest.raises(ParameterError, match=said):
        read_parameters(write(SMALL | {"models": [{"name": "ours", **model}]}))


def test_a_models_organs_may_be_named_by_its_own_labels(write):
    model = {"name": "ours", "kind": "nnunet", "folder": "here", "organs": {"liver": {"labels": ["Liver"]}}}
    assert read_parameters(write(SMALL | {"models": [model]})).models[0].organs["liver"].label_names == ["Liver"]


def test_a_study_s_snapshot_can_be_read_again(write, tmp_path):
    """Every key is in it, those that no study without a cluster may give a value too."""
    path = tmp_path / "study.yaml"
    for overrides in (
        {},
        {"compute.cluster": "slurm", "compute.jobs": 2, "compute.memory": "8GB", "compute.walltime": "01:00:00"},
    ):
        first = read_parameters(write(SMALL), overrides)
        path.write_text(yaml.safe_dump(first.model_dump(mode="json")), encoding="utf-8")
        assert read_parameters(path) == first
    assert "jobs is for jobs of a queueing system" in fail(write(SMALL), {"compute.jobs": 3})
