"""The same apps on Flask and on Hipflask, through three doors: answers, calls and logs are compared."""

from __future__ import annotations

import functools

import pytest
import scenes_errors  # noqa: F401
import scenes_hooks  # noqa: F401
import scenes_requests  # noqa: F401
import scenes_responses  # noqa: F401
import scenes_routing  # noqa: F401
import scenes_sessions  # noqa: F401
import scenes_settings  # noqa: F401
from stage import DOORS, SCENES, Kit, Record, Scene, differences, play


@functools.cache
def reference(index: int) -> Record:
    """What Flask does with a scene."""
    return play(SCENES[index], Kit("flask"), "wsgi")


# Both leave what was spooled of a broken form to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("index", range(len(SCENES)), ids=[str(scene) for scene in SCENES])
def test_hipflask_answers_as_flask(index: int, door: str) -> None:
    scene: Scene = SCENES[index]
    theirs = reference(index)
    ours = play(scene, Kit("hipflask"), door)
    found = list(differences(scene, theirs, ours, door))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_there_are_enough_cases() -> None:
    assert sum(len(scene.requests) for scene in SCENES) >= 300
