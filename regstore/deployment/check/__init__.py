"""A running registry, proved from outside, as its clients meet it: one line for each thing that must be so.

options       where it is and what is known of it (`CheckOptions`)
result        what was found: lines (`CheckLine`), each with its outcome and the cure
place         the address, as clients write it, and the place that is connected to
run           `check`: all of it in order. What can't be tried because of what failed is said to be "not tried"
reaching      the name resolves, the port answers
certificate   TLS: the chain, the names, the dates
client        the HTTP client: no answer is a sentence
answers       what a registry, or what stands before it, says in an answer, and the cure
access        it is a registry, asks for a password, takes the right one, refuses another; `regstore serve` beside it
storage       its storage health check, and the store itself where that can be opened
tiny          the image that is pushed: a few hundred bytes that nobody else has
trial         the image pushed, found, pulled, compared, and removed again

    from regstore.deployment.check import CheckOptions, check

    result = await check(CheckOptions(url="https://registry.example.org", user="ann", password="correct horse"))
    for line in result.lines:
        print(line.outcome, line.name, line.detail, line.cure)

The password goes to no server whose certificate is not right. In the registry, only its own tag and image of the
repository `regstore-check/probe` are written and removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore.deployment.check.options import CheckOptions
    from regstore.deployment.check.result import CheckLine, CheckResult, Outcome
    from regstore.deployment.check.run import check
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = ["CheckLine", "CheckOptions", "CheckResult", "Outcome", "check"]
