"""What is said of a run elsewhere than on its command line: by the environment, and by `regstore.toml`.

In the order to read them:

    look       an option as it is called in a file and in the environment
    ambient    which options may be said there for any run, and how careful they must be
    place      where the file is, and whether it may be trusted
    model      what stands in it: stores, options, policies, jobs
    reference  values that are not in the file: secrets in the environment, in files, from commands
    sources    the values of one command's options, and who said each
    current    what holds for the command under way; names of stores and of policies
    stub       where Click takes all that in
    lines      a step of a job as a command line
    complete   names of stores and jobs, for shells
    show, check    the commands of `regstore config`; `regstore run` is in `cli.job`
"""

from __future__ import annotations

from typing import Final

from regstore.cli.later import Later

CONFIG_COMMANDS: Final = {
    "show": Later(
        "regstore.cli.config.show:config_show",
        "Show what is configured: stores, jobs and options, each with the place that says it.",
    ),
    "check": Later(
        "regstore.cli.config.check:config_check",
        "Check the configuration file and the environment: keys, values, stores, policies and jobs.",
    ),
}
