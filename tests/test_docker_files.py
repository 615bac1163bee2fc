"""The container's promises that can be kept without a Docker engine: what the files say."""

import re
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
# Instructions on one line each: comments dropped, continued lines joined.
DOCKERFILE = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()
    if line.strip()
]


def pins(name):
    """The pins of a requirements file as {name: its lines}, the project itself left out."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith(("#", "-e ")):
            requirement = Requirement(line)
            found.setdefault(requirement.name, set()).add(str(requirement))
    return found


def position(keyword, text):
    """Index of the one instruction `keyword` whose argument contains `text`."""
    places = [i for i, (word, rest) in enumerate(INSTRUCTIONS) if word == keyword and text in rest]
    assert len(places) == 1, f"{len(places)} instructions `{keyword} …{text}…` in Dockerfile, not 1"
    return places[0]


def started(*profiles):
    """The services `docker compose up` starts: Compose reads no profile as the profile ''."""
    active = set(profiles or [""])
    return {
        name
        for name, service in SERVICES.items()
        if "profiles" not in service or active & set(service["profiles"])
    }


def pattern_matches(pattern, path):
    """Whether a .dockerignore pattern matches `path` itself: `**` spans folders, `*` does not."""
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.fullmatch("".join(wildcards.get(t, re.escape(t)) for t in tokens), path) is not None


def in_image(path, patterns):
    """Whether `path` is sent to the build: the last pattern for it or a folder above it decides."""
    above = [str(p) for p in PurePosixPath(path).parents if str(p) != "."]
    kept = True
    for pattern in patterns:
        if any(pattern_matches(pattern.lstrip("!").strip("/"), p) for p in [path, *above]):
            kept = pattern.startswith("!")
    return kept


@pytest.fixture(scope="module")
def ignored():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_each_command_starts_exactly_one_service():
    assert started() == started("gpu") == {"course"}
    assert started("cpu") == {"course-cpu"}


def test_only_the_default_service_asks_for_a_gpu_and_only_it_installs_cuda():
    def devices(name):
        deploy = SERVICES[name].get("deploy", {})
        return deploy.get("resources", {}).get("reservations", {}).get("devices", [])

    assert [d["capabilities"] for d in devices("course")] == [["gpu"]]
    assert devices("course-cpu") == []
    tensorflow = {
        name: Requirement(SERVICES[name]["build"]["args"]["TENSORFLOW"]) for name in SERVICES
    }
    assert {name: r.extras for name, r in tensorflow.items()} == {
        "course": {"and-cuda"},
        "course-cpu": set(),
    }
    assert {r.name for r in tensorflow.values()} == {"tensorflow"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_alone(name):
    assert SERVICES[name]["ports"]
    for port in SERVICES[name]["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:[^:]*(?::-\d+\})?:8888", port), port


@pytest.mark.parametrize("name", SERVICES)
def test_a_machine_without_env_file_can_start(name):
    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_reader_makes_outlives_the_container(name):
    workdir = INSTRUCTIONS[position("WORKDIR", "/")][1]
    mounts = dict(volume.split(":") for volume in SERVICES[name]["volumes"])
    assert mounts == {f"./{d}": f"{workdir}/{d}" for d in ("data", "models", "notebooks")}


def test_the_container_runs_as_a_user_who_is_not_root():
    users = [rest for word, rest in INSTRUCTIONS if word == "USER"]
    assert users and not set(users) & {"root", "0"}
    created = INSTRUCTIONS[position("RUN", "useradd")][1]
    assert users[-1] in created
    assert 'test "$USER_ID" -gt 0' in created
    for service in SERVICES.values():
        assert "user" not in service and not service.get("privileged")


def test_nothing_sets_or_takes_away_jupyters_token():
    for text in (DOCKERFILE, (ROOT / "compose.yaml").read_text()):
        assert not re.search(r"\.(token|password|hashed_password)\b|unauthenticated", text)
        assert "JUPYTER_TOKEN" not in text


def test_tensorflow_with_cuda_is_held_to_the_pin():
    pinned, tested = pins("requirements.txt"), pins("requirements-test.txt")
    assert {name: tested[name] for name in pinned} == pinned
    (tensorflow,) = pinned["tensorflow"]
    version = tensorflow.removeprefix("tensorflow==")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    asked = [service["build"]["args"]["TENSORFLOW"] for service in SERVICES.values()]
    asked.append(INSTRUCTIONS[position("ARG", "TENSORFLOW=")][1].partition("=")[2])
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(version)
    install = INSTRUCTIONS[position("RUN", '"$TENSORFLOW"')][1]
    assert "requirements-test.txt > /tmp/pins.txt" in install
    assert "--requirement /tmp/pins.txt" in install


def test_the_pins_are_installed_before_the_project_is_copied():
    order = [
        position("USER", "course"),
        position("COPY", "requirements-test.txt"),
        position("RUN", '"$TENSORFLOW"'),
        position("COPY", ". ."),
        position("RUN", "--editable ."),
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(
    "secret",
    [
        ".env",
        ".env.local",
        "notebooks/.env",
        "kaggle.json",
        "data/kaggle.json",
        "notebooks/kaggle.json",
        ".kaggle/access_token",
        "notebooks/.kaggle/kaggle.json",
        ".netrc",
        ".ssh/id_ed25519",
        "server.key",
        "scripts/cert.pem",
        ".git/config",
    ],
)
def test_no_secret_enters_the_image(secret, ignored):
    assert not in_image(secret, ignored)


@pytest.mark.parametrize(
    "bulk",
    [
        "data/flowers/image_00001.jpg",
        "models/book.keras",
        ".venv/bin/python",
        "diffusion/__pycache__/unet.cpython-311.pyc",
        "diffusion_flowers.egg-info/PKG-INFO",
        ".pytest_cache/README.md",
        "notebooks/.ipynb_checkpoints/01_flowers-checkpoint.ipynb",
        "build/lib/diffusion/unet.py",
    ],
)
def test_no_download_and_no_cache_enters_the_image(bulk, ignored):
    assert not in_image(bulk, ignored)


@pytest.mark.parametrize(
    "needed",
    [
        "Makefile",
        "pyproject.toml",
        "requirements-test.txt",
        "utils.py",
        "diffusion/unet.py",
        "diffusion/keras.py",
        "tests/test_docker_files.py",
        "notebooks/01_flowers.ipynb",
        "compose.yaml",
        ".dockerignore",
        ".env.example",
        "data/README.md",
    ],
)
def test_the_image_has_what_make_test_needs(needed, ignored):
    assert in_image(needed, ignored)


def test_env_example_holds_no_values_and_names_only_what_is_read():
    settings = dict(
        line.lstrip("#").split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if re.match(r"#?[A-Z_]+=", line)
    )
    assert not any(settings[key] for key in settings if re.search("TOKEN|KEY|USERNAME", key))
    compose = (ROOT / "compose.yaml").read_text()
    read_by_compose = {"USER_ID", "GROUP_ID", "COURSE_PORT"}
    assert all(f"${{{key}:-{settings[key]}}}" in compose for key in read_by_compose)
    read_elsewhere = {"COMPOSE_PROFILES", "JUPYTER_TOKEN"}  # by Compose itself, by Jupyter
    assert {k for k in settings if not k.startswith("KAGGLE_")} == read_by_compose | read_elsewhere


def test_the_workflow_runs_make_test_on_every_python_the_package_supports():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    pythons = job["strategy"]["matrix"]["python-version"]
    assert all(isinstance(version, str) for version in pythons)  # 3.10 unquoted would be 3.1
    supported = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    low, high = map(int, supported.groups())
    assert pythons == [f"3.{minor}" for minor in range(low, high)]
    assert "make test" in [step.get("run") for step in job["steps"]]
    assert job["timeout-minutes"] <= 90
    for step in job["steps"]:
        assert "uses" not in step or re.search(r"@v\d+$", step["uses"])
