"""To be imported before torch: its threads wait for each other without spinning for long."""

from __future__ import annotations

from oneword.runs import threads


threads.wait_briefly()
