"""The faults of a run: which are drawn, and which are skipped with the reason."""

import random
from dataclasses import dataclass

REPLICAS = ("Ingress", "SketchReplica", "TextReplica", "FusionReplica")
SERVE_PROCESSES = (*REPLICAS, "ServeController", "Proxy")
# Ray jobs and the titles of their processes besides the driver.
JOBS = {"embed_gallery": ("EncoderActor", "decode_part"), "caption": ("caption_chunk",)}
PROCESS_FAULTS = ("kill", "stop")


@dataclass(frozen=True)
class Fault:
    """A fault in a scenario. `target`: the process, empty for the storage."""

    scenario: str
    kind: str
    target: str = ""


@dataclass(frozen=True)
class Step:
    """A fault of a run. `moment`: when it happens, as a share of the undisturbed duration."""

    number: int
    fault: Fault
    moment: float


def _faults_of_job(scenario: str, processes: tuple[str, ...]) -> list[Fault]:
    victims = ("driver", *processes)
    return [
        *(Fault(scenario, kind, victim) for kind in PROCESS_FAULTS for victim in victims),
        Fault(scenario, "storage_storm"),
        Fault(scenario, "disk_full", "driver"),
        Fault(scenario, "clock_jump", "driver"),
    ]


FAULTS = (
    *_faults_of_job("train", ()),
    *(fault for job, processes in JOBS.items() for fault in _faults_of_job(job, processes)),
    Fault("caption", "disk_full", "caption_chunk"),
    *(Fault("serve", kind, process) for kind in PROCESS_FAULTS for process in SERVE_PROCESSES),
    Fault("serve", "storage_storm"),
    Fault("serve", "disk_full", "FusionReplica"),
    Fault("serve", "publish_in_deploy"),
)

# Faults that this harness cannot make.
SKIPPED = {
    Fault("embed_gallery", "kill", "raylet"): "one cluster has all steps; tests/cluster/test_embed_faults.py",
    Fault("train", "kill", "raylet"): "trains without Ray; tests/cluster/test_elastic_training.py",
    Fault("embed_gallery", "clock_jump", "EncoderActor"): "Ray starts the process; needs libfaketime",
    Fault("serve", "clock_jump", "Ingress"): "Ray starts the process; needs libfaketime",
}


def draw_steps(seed: int, count: int) -> list[Step]:
    """Draw `count` faults at random moments; no fault is repeated before all have been drawn."""
    rng, drawn = random.Random(seed), list[Fault]()
    while len(drawn) < count:
        drawn += rng.sample(FAULTS, len(FAULTS))
    return [
        Step(number, fault, round(rng.uniform(0.1, 0.9), 3)) for number, fault in enumerate(drawn[:count])
    ]
