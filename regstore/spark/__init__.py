"""A cluster: Apache Spark lists, reads, plans and removes for gc; what is decided stays with the driver. Extra
regstore[spark].

    options = SparkOptions(master="spark://head:7077", work="/shared/regstore-work", shards=64)
    with open_session(options) as session:
        async with open_spark_run(session, storage, GcRunOptions(), options) as run:      # with a lock: `run.apply()`
            print(run.summary)

The plan is that of one process: within each task the planner of `regstore.gc.plan` runs as it is, on a shard of the
repositories or of the blobs (`gc.plan.shards` says what these must know of each other, and Spark carries it). The rest
is a chain of stages. Each is a job whose result is written as Parquet below the work folder, and only what a stage has
committed is read by the next: an executor that is lost never makes Spark ask the store again for what a later stage
stands on. (Blobs listed again after the links would be no candidates any more that are safe to remove.)

    <work>/regstore-work.json                          that the folder is ours
    <work>/manifests-v<parser>/<run>-<round>/          manifests that were read, kept between runs
    <work>/runs/<run>/<stage>/relation=<name>/         this run's; removed at its end
    <work>/runs/<run>/_here                            where the folder is one of a computer: each task that writes
                                                       must find it

A run that removes heals before it plans, looks again while it removes, and ends by the code of one process, in the
driver; that gets of the store what earlier runs' journals and trash are about (`healing`). Links and blobs go in stages
of tasks that journal in parts of their own and look at the lock (`gc.apply`; why that is safe where executors are lost:
`hands`).

Here: `options`; `session` (Spark's, and what is refused about it and its executors); `work_folder` (stages); `flow`
(the stages of a plan in their order), with `listing_rounds` and `manifest_rounds`; `cluster` (all of these, for a run);
`run` (opened, planned); `reported` (blobs by a report); `healing`; `hands` (the application), with `looks` and
`attempts`. In `tasks`, which executors run, and which know no engine: `rows` (the one shape of row that passes between
all of these), `executing` (how a task runs, and fails), `listing`, `reporting`, `loading`, `reading`, `further`,
`planning`, `bringing`, `unlinking`, `sweeping`, `attempts`. Only modules of this folder itself import pyspark, and none
before it is used.

verify and migrate need no stages: `runner` hands the tasks of `regstore.tasks` to executors, as a pool does to worker
processes; in `tasks`, `running` is what an executor makes of one.
"""
