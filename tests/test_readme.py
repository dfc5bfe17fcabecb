"""The READMEs keep their promises: tables are those of committed results, links lead somewhere."""

import importlib
import json
import re

import pytest

from bnn_adv.report import markdown_table
from bnn_adv.report.certification import format_certificate
from bnn_adv.report.evaluation import format_evaluation
from bnn_adv.report.table import to_markdown
from experiments import attack, compare, reproduce
from experiments.autoattack.report import build_overview, summarise
from experiments.benchmark.table import format_markdown
from experiments.launch.config import to_json
from experiments.launch.tables import list_tables, verdicts_table
from experiments.readme.__main__ import PART, ROOT, generate, list_parts, list_readmes
from experiments.readme.one_number import one_number
from experiments.readme.tables import EXPERIMENTS, list_results

READMES = list_readmes()
FIRST = (ROOT / "README.md").read_text("utf-8")
COMMITTED = sorted((ROOT / "experiments").glob("**/results/*/results.json"))


def of_experiment(name):
    return [p for p in COMMITTED if json.loads(p.read_text("utf-8"))["experiment"] == name]


def name_of(path):
    return path.parent.relative_to(ROOT / "experiments").as_posix()


def readme_of(path):
    """Return the text of the README beside the folder ``results``, or in it."""
    folder = path.parents[1]
    own = folder / "README.md"
    return (own if own.exists() else folder.parent / "README.md").read_text("utf-8")


def test_the_first_readme_is_short():
    assert len(FIRST.splitlines()) <= 200


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_generated_parts_are_those_of_the_committed_results(path):
    text = path.read_text("utf-8")
    # python -m experiments.readme writes them anew.
    assert generate(text, path.parent) == text


def test_every_committed_result_stands_in_exactly_one_readme():
    shown = [
        (path.parent / part).resolve()
        for path in READMES
        for part in list_parts(path.read_text("utf-8"))
    ]
    for path in COMMITTED:
        assert shown.count(path.parent.resolve()) == 1, path


def test_a_generated_part_that_was_edited_or_not_closed_is_found():
    path = ROOT / "experiments" / "table2" / "README.md"
    text = path.read_text("utf-8")
    assert generate(text.replace("97.69", "97.70"), path.parent) == text
    with pytest.raises(ValueError, match="every mark needs its own"):
        generate(text.replace("<!-- end of generated -->", ""), path.parent)
    with pytest.raises(FileNotFoundError):
        generate(text.replace("generated: beside the paper", "generated: results/no"), path.parent)


@pytest.mark.parametrize("path", of_experiment("evaluate"), ids=name_of)
def test_tables_are_those_of_the_committed_results(path):
    results = json.loads(path.read_text("utf-8"))
    assert markdown_table(results).strip() in readme_of(path)
    assert results["command"] in readme_of(path)
    assert (path.parent / "figures" / "accuracy.png").exists()


@pytest.mark.parametrize("path", of_experiment("attack"), ids=name_of)
def test_evaluations_are_the_committed_ones(path):
    results = json.loads(path.read_text("utf-8"))
    assert format_evaluation(results).strip() in readme_of(path)
    assert results["command"] in readme_of(path)
    assert (path.parent / "figures" / "curve.png").exists() == (results["curve"] is not None)


@pytest.mark.parametrize("path", of_experiment("certify"), ids=name_of)
def test_certificates_are_the_committed_ones(path):
    results = json.loads(path.read_text("utf-8"))
    assert format_certificate(results).strip() in readme_of(path)
    assert results["command"] in readme_of(path)
    has_radii = "certified_radius" in results
    assert (path.parent / "figures" / "certified.png").exists() == has_radii


@pytest.mark.parametrize("path", of_experiment("benchmark"), ids=name_of)
def test_speeds_are_those_of_the_committed_benchmark(path):
    results = json.loads(path.read_text("utf-8"))
    assert format_markdown(results["rows"]).strip() in readme_of(path)
    assert results["command"] in readme_of(path)
    is_swept = "scaling" in {row["case"] for row in results["rows"]}
    assert (path.parent / "figures" / "cost.png").exists() == is_swept


@pytest.mark.parametrize("path", of_experiment("autoattack"), ids=name_of)
def test_the_comparison_with_autoattack_is_the_committed_one(path):
    results = json.loads(path.read_text("utf-8"))
    assert to_markdown(build_overview(results["rows"])).strip() in readme_of(path)
    assert results["summary"] == summarise(results["rows"])
    assert results["summary"] in readme_of(path)
    assert results["command"] in readme_of(path)


STUDIES = [path for name in reproduce.ITEMS for path in of_experiment(name)]


@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_studies_are_the_committed_ones(path):
    results, readme = json.loads(path.read_text("utf-8")), readme_of(path)
    assert results["summary"] in readme
    assert results["command"] in readme
    verdicts = verdicts_table(results["verdicts"])
    assert verdicts is None or to_markdown(verdicts).strip() in readme
    for figure in results["figures"]:
        assert (path.parent / figure["file"]).exists()
        assert f"results/{path.parent.name}/{figure['file']}" in readme
        assert figure["caption"] in readme
    for table in list_tables(results):
        assert to_markdown(table).strip() in readme, table.title


WHOLE = [
    path
    for path in of_experiment("protocol_ablation") + of_experiment("table2")
    # The part on HMC repeats nothing of the paper's tables.
    if json.loads(path.read_text("utf-8"))["config"].get("parts") != ["hmc"]
]


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_what_stands_beside_the_paper_is_quoted(path):
    tables = list_tables(json.loads(path.read_text("utf-8")))
    assert "Beside the paper" in [table.title for table in tables]


def test_the_headline_is_that_of_the_committed_ablation():
    path = ROOT / "experiments" / "protocol_ablation" / "results" / "cpu" / "results.json"
    results = json.loads(path.read_text("utf-8"))
    (claim,) = (claim for claim in results["claims"] if claim["quantity"] == "PGD")
    assert f"PGD leaves {claim['published']} % as" in FIRST
    assert f"(paper: {claim['paper']} %)" in FIRST.replace("\n", " ")
    assert f"A strong attack leaves {claim['strong']:.1f} %" in FIRST.replace("\n", " ")
    summary = results["summary"]
    assert "64.7 [60.8, 68.3] % under PGD" in summary
    assert "exactly zero in float32 at 87.0 % of the images" in summary
    assert "64.7 %" in FIRST
    path = ROOT / "experiments" / "results" / "table2_mnist" / "results.json"
    rows = {row["model"]: row for row in json.loads(path.read_text("utf-8"))["rows"]}
    vi = rows["vi"]["protocols"]
    assert f"VI network keeps {100 * vi['published']['pgd']:.1f} % under" in FIRST
    assert vi["strong"]["worst"] == 0
    assert any("have not mixed" in text for text in rows["hmc"]["diagnostics"]["warnings"])
    assert "87.0 % of the images" in FIRST


def test_commands_of_experiments_are_those_that_made_the_results():
    for path, command, _ in EXPERIMENTS.values():
        results = json.loads((ROOT / "experiments" / path / "results.json").read_text("utf-8"))
        made = re.sub(r" --(workdir|data_dir)=\S+", "", results["command"])
        name, scale = path.split("/")[0], path.rpartition("/")[2]
        if made.startswith("python -m experiments.reproduce "):
            assert name in re.search(r"--only=(\S+)", made)[1].split(",")
            made = f"python -m experiments.{name} --scale={scale}"
        if command != made:
            # Flags that say what the scale says by now; settings of later on stand at defaults.
            settings, defaults = read_study(command)
            later = settings.keys() - results["config"].keys()
            assert settings == results["config"] | {key: defaults[key] for key in later}


def read_study(command):
    """Return the settings of a study's command with no flags but scale and processes; defaults."""
    pattern = r"python -m (\S+) --scale=(\w+) --jobs=(\d+)"
    name, scale, jobs = re.fullmatch(pattern, command).groups()
    config = importlib.import_module(f"{name}.config")
    found = to_json(config.Config(**config.SCALES[scale] | {"jobs": int(jobs)}))
    settings = {key: value for key, value in found.items() if key != "data_dir"}
    return settings, to_json(config.Config())


def test_every_result_has_one_number_in_the_table_of_all():
    readme = (ROOT / "experiments" / "README.md").read_text("utf-8")
    found = list_results(ROOT)
    assert len(found) == len(COMMITTED)
    for results in found.values():
        assert one_number(results) in readme


def anchors(text):
    """Return the anchors that a page has for its headings, as code hosts name them."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", plain, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "path", [*READMES, ROOT / "CHANGELOG.md"], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_every_picture_file_and_heading_that_it_links_exists(path):
    text = path.read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target) if target else path
        assert found.exists(), link
        if anchor:
            assert anchor in anchors(found.read_text("utf-8")), link


def test_every_readme_is_linked_from_the_first_or_the_experiments():
    linked = {ROOT / "README.md"}
    for path in (ROOT / "README.md", ROOT / "experiments" / "README.md"):
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
        linked |= {(path.parent / link).resolve() for link in links}
    assert set(READMES) <= linked


@pytest.mark.parametrize("path", of_experiment("evaluate"), ids=name_of)
def test_recorded_comparisons_are_todays_commands(path):
    results = json.loads(path.read_text("utf-8"))
    assert results["command"].startswith(f"python -m {compare.__name__} ")
    assert not re.search(r"--(models|protocol|ensemble_size|architecture)\b", results["command"])


@pytest.mark.parametrize("path", of_experiment("attack"), ids=name_of)
def test_recorded_attacks_are_todays_commands(path):
    command = json.loads(path.read_text("utf-8"))["command"]
    assert command.startswith(f"python -m {attack.__name__} ")


NOT_MEASURED_HERE = {
    "13.2",  # an earlier training, as its sentence says
    "2.13",  # PyTorch's version
}
_NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?!\.?\d)")


@pytest.mark.parametrize(
    "path",
    [p for p in READMES if p.parent.parent.name == "experiments"],
    ids=lambda p: p.parent.name,
)
def test_numbers_in_sentences_are_those_of_the_results_below(path):
    text = path.read_text("utf-8")
    generated = " ".join(match[0] for match in PART.finditer(text))
    if path.parent.name == "table2":  # its tables stand with those of the other single runs
        generated += (ROOT / "experiments" / "results" / "README.md").read_text("utf-8")
    written = re.sub(r"^```.*?^```$|`[^`]*`", "", PART.sub("", text), flags=re.DOTALL | re.M)
    shown = [float(number) for number in _NUMBER.findall(generated)]
    for number in set(_NUMBER.findall(written)) - NOT_MEASURED_HERE:
        digits = len(number.partition(".")[2])
        # A share may be written in per cent.
        rounded = {f"{value:.{digits}f}" for x in shown for value in (x, 100 * x)}
        assert number in rounded, number
