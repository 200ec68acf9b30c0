"""What long work calls while it runs: the types of ``progress`` and ``show``.

Each is a function of the caller. What it gets is a number, a name or a line, and never a bar: how
these are shown is the business of ``cli``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

# a line for the user
ShowLine = Callable[[str], None]

# name of the part that is done
NameProgress = Callable[[str], None]

# parts that are done, number of parts
CountProgress = Callable[[int, int], None]

# step of a training, number of steps, latest value of each curve
StepProgress = Callable[[int, int, Mapping[str, float]], None]

# stage of a training, its step, its number of steps, latest value of each curve
StageProgress = Callable[[str, int, int, Mapping[str, float]], None]

# session, node, 'start' | 'end' | 'exception', number of nodes of the session
NodeProgress = Callable[[str, str, str, int], None]
