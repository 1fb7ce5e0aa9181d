"""When a failed request is sent again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter: after try n, a random time up to `base * 2**(n-1)`, at most `cap`.

    tries: requests in all, the first included. first_contact: tries when no connection can be made, or no answer
    comes, and this storage has had no answer yet, so that a wrong endpoint is told soon. first_patience: seconds that
    such an answer is waited for at the first try; each further one waits that much longer. unanswered: tries of reading
    one object when no answer comes in time, from a server that does answer: one object must not cost many minutes.
    base, cap: seconds.
    """

    tries: int = 8
    first_contact: int = 3
    first_patience: float = 20.0
    unanswered: int = 3
    base: float = 0.1
    cap: float = 20.0

    def delay(self, attempt: int, asked: float = 0.0) -> float:
        """Seconds to wait after the `attempt`-th try failed; `asked` is the server's Retry-After."""
        wait = random.uniform(0, min(self.cap, self.base * 2 ** (attempt - 1)))
        return min(self.cap, max(wait, asked))
