"""Stages of tasks that change the store: which attempt each is, and whether any was made more than once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from regstore.spark.tasks.attempts import Attempt

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")

_GROUP: Final = "spark.jobGroup.id"


def this_attempt() -> Attempt:
    """Of a task, in its own process. Spark numbers the attempts of all tasks of its context; those at one task it
    counts anew where it begins the stage again."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return Attempt(number=context.taskAttemptId(), repeated=context.attemptNumber() > 0)


def run_watched(session: SparkSession, job: Callable[[], T]) -> tuple[T, bool]:
    """The job's result; and whether any task of it may have been begun more than once, or be under way yet, with an
    executor that Spark has lost. Where Spark does not tell, it may."""
    context: Any = session.sparkContext
    group = f"regstore-{secrets.token_hex(8)}"
    before = context.getLocalProperty(_GROUP)
    context.setLocalProperty(_GROUP, group)
    try:
        result = job()
    finally:
        context.setLocalProperty(_GROUP, before)
    return result, _was_repeated(context, group)


def _was_repeated(context: Any, group: str) -> bool:
    from py4j.protocol import Py4JError

    tracker = context.statusTracker()
    try:
        context._jsc.sc().listenerBus().waitUntilEmpty()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        stages = [tracker.getStageInfo(stage) for job in jobs if job is not None for stage in job.stageIds]
    except Py4JError:
        return True
    if not jobs or None in jobs or None in stages:
        return True
    return any(stage.numFailedTasks or stage.currentAttemptId for stage in stages)
