"""`python -m scripts.deployment` prints what is wrong in `deploy/`, a line each; its status is 1 if anything is."""

import sys
from pathlib import Path

from scripts.deployment.rules import CHECKS
from scripts.deployment.tools import TOOLS

root = Path(__file__).parents[2]
complaints = [complaint for check in CHECKS for complaint in check(root)]
for tool in TOOLS:
    if tool.is_there:
        complaints += [f"{tool.name}: {complaint}" for complaint in tool.check(root)]
    else:
        print(f"left out: {tool.name} ({tool.remedy})")
for complaint in complaints:
    print(complaint)
sys.exit(1 if complaints else 0)
