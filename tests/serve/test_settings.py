import pytest
import yaml

from serve.settings import DEFAULT, RENAMED_SETTINGS, read_settings, scales_to_zero
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


@pytest.mark.parametrize("profile", PROFILES)
def test_encoders_reject_before_the_ingress(profile):
    """A full ingress is answered by the proxy, whose errors are not problem details."""
    settings = read_settings(profile)
    max_groups = sum(
        encoder.options["max_ongoing_requests"] + encoder.options["max_queued_requests"]
        for encoder in (settings.sketch, settings.text)
    )
    coalescing = settings.ingress.coalescing
    max_searches = max_groups * coalescing.max_group_size + coalescing.max_queued_searches
    assert max_searches < settings.ingress.options["max_ongoing_requests"]


def test_file_overrides_only_the_settings_it_holds(write_settings):
    assert read_settings(write_settings("limits.k", 7)).limits.k == 7
    settings = read_settings(write_settings("sketch.options.max_queued_requests", 7))
    default = read_settings()
    assert settings.sketch.options == {**default.sketch.options, "max_queued_requests": 7}
    assert (settings.text, settings.limits) == (default.text, default.limits)
    assert settings.sketch.batching == default.sketch.batching


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("limits.k", 0, "limits.k"),
        ("limits.colour", 1, "limits.colour"),
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


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_invalid_file_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_settings(str(tmp_path / "x.yaml"))


def test_deployments_scale_to_zero_only_if_configured(write_settings):
    assert not scales_to_zero(read_settings().sketch.options)
    settings = read_settings(write_settings("sketch.options.autoscaling_config.min_replicas", 0))
    assert scales_to_zero(settings.sketch.options)
    assert not scales_to_zero(settings.text.options)
