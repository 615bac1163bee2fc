"""What the container's files promise, as far as reading them can tell; the workflow builds it."""

import re

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_each_command_starts_one_service_and_only_the_default_asks_for_a_gpu():
    profiles = {name: set(service["profiles"]) for name, service in SERVICES.items()}
    assert profiles == {"course": {"", "gpu"}, "course-cpu": {"cpu"}}
    assert "nvidia" in str(SERVICES["course"]) and "nvidia" not in str(SERVICES["course-cpu"])
    asked = {name: service["build"]["args"]["TENSORFLOW"] for name, service in SERVICES.items()}
    assert asked == {"course": "tensorflow[and-cuda]", "course-cpu": "tensorflow"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_private_starts_without_env_file_and_keeps_the_readers_work(name):
    service = SERVICES[name]
    for port in service["ports"]:
        assert port.startswith("127.0.0.1:")
    assert service["env_file"] == [{"path": ".env", "required": False}]
    kept = {volume.split(":")[0] for volume in service["volumes"]}
    assert kept == {"./data", "./models", "./notebooks"}
    assert "user" not in service and not service.get("privileged")


def test_the_image_runs_as_another_user_than_root_and_leaves_jupyters_token_alone():
    assert set(re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)) == {"course"}
    for text in (DOCKERFILE, (ROOT / "compose.yaml").read_text()):
        assert not re.search(r"\.(token|password|hashed_password)\b|unauthenticated", text)
        assert "JUPYTER_TOKEN" not in text


def pins(file):
    """Return {(package, marker): version} of a requirements file."""
    lines = (ROOT / file).read_text().splitlines()
    found = map(Requirement, (line for line in lines if line and line[0] not in "#-"))
    return {(pin.name, str(pin.marker)): str(pin.specifier) for pin in found}


def test_a_package_has_the_same_pin_in_all_requirements_files():
    course, tested, on_jax = map(
        pins, ("requirements.txt", "requirements-test.txt", "requirements-jax.txt")
    )
    assert len(course) > 50 and {pin: tested[pin] for pin in course} == course
    assert all(on_jax[pin] == tested[pin] for pin in set(on_jax) & set(tested))
    assert not [name for name, _ in on_jax if name.startswith("tensor")]
    assert course["tensorflow", "None"].startswith("==")
    assert "requirements-test.txt > /tmp/pins.txt" in DOCKERFILE  # they hold TENSORFLOW


def test_env_example_holds_no_secrets_and_names_only_what_is_read():
    lines = (ROOT / ".env.example").read_text().splitlines()
    settings = dict(line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))
    assert not any(settings[key] for key in settings if re.search("TOKEN|KEY|USERNAME", key))
    compose = (ROOT / "compose.yaml").read_text()
    read_by_compose = {"USER_ID", "GROUP_ID", "COURSE_PORT"}
    assert all(f"${{{key}:-{settings[key]}}}" in compose for key in read_by_compose)
    read_elsewhere = {"COMPOSE_PROFILES", "JUPYTER_TOKEN"}  # by Compose itself, by Jupyter
    assert {k for k in settings if not k.startswith("KAGGLE_")} == read_by_compose | read_elsewhere


def test_the_workflow_runs_make_test_on_every_python_the_package_supports():
    job = WORKFLOW["jobs"]["test"]
    supported = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    low, high = map(int, supported.groups())
    pythons = [f"3.{minor}" for minor in range(low, high)]
    assert job["strategy"]["matrix"]["python-version"] == pythons
    assert "make test" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize(
    "name",
    [f"{n}-64.keras" for n in ("flowers", "flowers-by-name", "encoder", "noisy-classifier")],
)
def test_what_ships_is_copied_into_the_image(name):
    """The last matching line of .dockerignore decides; the workflow checks all others."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines.index("models/*") < lines.index(f"!models/{name.removesuffix('keras')}*")
