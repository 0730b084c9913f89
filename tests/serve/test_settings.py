import pytest
import yaml

from serve.settings import DEFAULT, always_there, read_settings
from stbir.errors import InputError


@pytest.fixture
def changed(tmp_path):
    """`changed(path, value)`: the shipped settings with one field replaced, as a file."""

    def write(path: str, value: object) -> str:
        tree = yaml.safe_load(DEFAULT.read_text())
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            node = node[name]
        node[last] = value
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tree))
        return str(tmp_path / "settings.yaml")

    return write


PROFILES = [None, *map(str, sorted((DEFAULT.parent / "profiles").glob("*.yaml")))]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_deployment_is_bounded_and_scales(profile):
    settings = read_settings(profile)
    for service in (settings.ingress, settings.sketch, settings.text, settings.fusion):
        assert service.options["max_ongoing_requests"] > 0
        assert service.options["max_queued_requests"] > 0
        scaling = service.options["autoscaling_config"]
        assert 1 <= scaling["min_replicas"] <= scaling["max_replicas"]
        # A replica is added before those that are there are full.
        assert scaling["target_ongoing_requests"] < service.options["max_ongoing_requests"]


def test_one_of_each_fits_two_cores():
    settings = read_settings()
    services = (settings.ingress, settings.sketch, settings.text, settings.fusion)
    assert sum(service.options["ray_actor_options"]["num_cpus"] for service in services) < 2


@pytest.mark.parametrize("profile", PROFILES)
def test_towers_refuse_before_the_ingress_does(profile):
    """Where the ingress is full the proxy answers, and its answers are no problem details."""
    settings = read_settings(profile)
    groups = sum(
        tower.options["max_ongoing_requests"] + tower.options["max_queued_requests"]
        for tower in (settings.sketch, settings.text)
    )
    together = settings.ingress.together
    most = groups * together.most + together.places
    assert most < settings.ingress.options["max_ongoing_requests"]


def test_a_file_of_ones_own(changed):
    assert read_settings(changed("limits.k", 7)).limits.k == 7


def test_a_file_need_hold_only_what_differs(tmp_path):
    (tmp_path / "less.yaml").write_text("sketch: {options: {max_queued_requests: 7}}")
    shipped, ours = read_settings(), read_settings(str(tmp_path / "less.yaml"))
    assert ours.sketch.options == {**shipped.sketch.options, "max_queued_requests": 7}
    assert (ours.text, ours.limits, ours.sketch.batching) == (
        shipped.text,
        shipped.limits,
        shipped.sketch.batching,
    )


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("limits.k", 0, "limits.k"),
        ("limits.colour", 1, "limits.colour"),
        ("text.batching.max_batch_size", "many", "text.batching.max_batch_size"),
        (
            "sketch.batching.max_batch_size",
            144,
            "sketch.options.max_ongoing_requests: must be at least 9",  # groups of 16
        ),
    ],
)
def test_a_wrong_field_is_named(changed, path, value, says):
    uri = changed(path, value)
    with pytest.raises(InputError, match=f"settings.yaml: {says}") as error:
        read_settings(uri)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_what_is_no_settings_file_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_settings(str(tmp_path / "x.yaml"))


def test_scaled_to_zero_only_where_that_is_asked_for(changed):
    assert always_there(read_settings().sketch.options)
    asked = read_settings(changed("sketch.options.autoscaling_config.min_replicas", 0))
    assert not always_there(asked.sketch.options)
    assert always_there(asked.text.options)
