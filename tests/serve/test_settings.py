import pytest
import yaml

from serve.environment import backend_in_force
from serve.settings import DEFAULT, RENAMED_SETTINGS, read_settings
from stbir.errors import InputError


@pytest.fixture
def write_settings(tmp_path):
    """`write_settings(path, value)`: a file that overrides the setting at a dotted path."""

    def write(path: str, value: object) -> str:
        tree: object = value
        for name in reversed(path.split(".")):
            tree = {name: tree}
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tree))
        return str(tmp_path / "settings.yaml")

    return write


PROFILES = [None, *map(str, sorted((DEFAULT.parent / "profiles").glob("*.yaml")))]


@pytest.mark.parametrize("profile", PROFILES)
def test_each_deployment_has_bounded_queues_and_scales(profile):
    settings = read_settings(profile)
    for service in (settings.ingress, settings.sketch, settings.text, settings.fusion):
        assert service.options["max_ongoing_requests"] > 0
        assert service.options["max_queued_requests"] > 0
        scaling = service.options["autoscaling_config"]
        assert 1 <= scaling["min_replicas"] <= scaling["max_replicas"]
        # A replica is added before the existing ones are at capacity.
        assert scaling["target_ongoing_requests"] < service.options["max_ongoing_requests"]


def test_one_replica_of_each_deployment_fits_two_cores():
    settings = read_settings()
    services = (settings.ingress, settings.sketch, settings.text, settings.fusion)
    assert sum(service.options["ray_actor_options"]["num_cpus"] for service in services) < 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "ingress.options.max_ongoing_requests",
            544,
            "ingress.options.max_ongoing_requests: must be at least 545",
        ),
        ("ingress.coalescing.max_queued_searches", 4096, "ingress.options.max_ongoing_requests"),
        ("ingress.thumbnails.max_in_flight", 4096, "ingress.options.max_ongoing_requests"),
        ("sketch.options.max_queued_requests", 21, "sketch.options.max_queued_requests: must be at least 22"),
        ("text.options.max_queued_requests", 1, "text.options.max_queued_requests"),
        ("fusion.options.max_queued_requests", 29, "fusion.options.max_queued_requests: must be at least 30"),
        ("ingress.thumbnails.max_concurrent", 64, "fusion.options.max_queued_requests"),
        (
            "fusion.options.max_replicas_per_node",
            3,
            "fusion.options.max_replicas_per_node: 3 exceeds max_rep",
        ),
    ],
)
def test_limits_that_contradict_each_other_are_refused(write_settings, path, value, message):
    """Admission control is the only limit: what it admits has a place in every queue behind it."""
    with pytest.raises(InputError, match=f"settings.yaml: {message}"):
        read_settings(write_settings(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [("sketch.options.max_queued_requests", -1), ("fusion.options.max_replicas_per_node", 2)],
)
def test_unbounded_queue_and_as_many_replicas_a_node_as_in_all_are_allowed(write_settings, path, value):
    read_settings(write_settings(path, value))


def test_a_fixed_number_of_replicas_replaces_autoscaling(write_settings):
    options = {"autoscaling_config": None, "num_replicas": 3, "max_replicas_per_node": 3}
    read_settings(write_settings("fusion.options", options))


def test_file_overrides_only_the_settings_it_holds(write_settings):
    assert read_settings(write_settings("limits.k", 7)).limits.k == 7
    settings = read_settings(write_settings("sketch.options.max_queued_requests", 70))
    default = read_settings()
    assert settings.sketch.options == {**default.sketch.options, "max_queued_requests": 70}
    assert (settings.text, settings.limits) == (default.text, default.limits)
    assert settings.sketch.batching == default.sketch.batching


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("limits.k", 0, "limits.k"),
        ("limits.colour", 1, "limits.colour"),
        ("text.backend", "tensorrt", "text.backend: Input should be 'auto', 'torch', 'openvino'"),
        ("text.batching.max_batch_size", "many", "text.batching.max_batch_size"),
        (
            "sketch.batching.max_batch_size",
            144,
            "sketch.options.max_ongoing_requests: must be at least 9",  # groups of 16
        ),
        *((old, 1, f"{old}: renamed; use {new}$") for old, new in RENAMED_SETTINGS.items()),
    ],
)
def test_invalid_field_is_refused_by_name(write_settings, path, value, message):
    uri = write_settings(path, value)
    with pytest.raises(InputError, match=f"settings.yaml: {message}") as error:
        read_settings(uri)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("galleries", "message"),
    [
        ({"a/b": {"gallery": "x"}}, "galleries.a/b"),
        ({"default": {"gallery": "x"}}, "galleries.default.*is the name of the gallery of the argument"),
        ({"shoes": {"version": 3}}, "galleries.shoes.gallery"),
        ({"shoes": {"gallery": "x", "checkpoint": "y"}}, "galleries.shoes.checkpoint"),
        # Each gallery has groups of its own at the encoders.
        (
            {f"g{n}": {"gallery": "x"} for n in range(6)},
            "sketch.options.max_queued_requests: must be at least 34",
        ),
    ],
)
def test_invalid_gallery_is_refused_by_name(write_settings, galleries, message):
    with pytest.raises(InputError, match=message):
        read_settings(write_settings("galleries", galleries))


def test_each_gallery_has_a_deployment_of_its_own(write_settings):
    settings = read_settings(write_settings("galleries", {"shoes": {"gallery": "x", "version": 3}}))
    assert settings.gallery_names == ("default", "shoes")
    assert settings.required_deployments("shoes") == {"SketchReplica", "TextReplica", "FusionReplica_shoes"}


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_invalid_file_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_settings(str(tmp_path / "x.yaml"))


def test_searches_require_the_deployments_that_do_not_scale_to_zero(write_settings):
    assert read_settings().required_deployments() == {"SketchReplica", "TextReplica", "FusionReplica"}
    settings = read_settings(write_settings("sketch.options.autoscaling_config.min_replicas", 0))
    assert settings.required_deployments() == {"TextReplica", "FusionReplica"}
    assert read_settings(write_settings("composition", "one_process")).required_deployments() == set()


@pytest.mark.parametrize(
    ("configured", "variable", "backend"),
    [("auto", None, "auto"), ("auto", "torch", "torch"), ("openvino", "torch", "openvino")],
)
def test_backend_of_the_environment_replaces_auto(monkeypatch, configured, variable, backend):
    monkeypatch.delenv("STBIR_BACKEND", raising=False)
    if variable:
        monkeypatch.setenv("STBIR_BACKEND", variable)
    assert backend_in_force(configured) == backend
