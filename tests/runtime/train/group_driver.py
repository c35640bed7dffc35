"""A driver in a process of its own, to be killed: runs the job that its environment has on a Ray cluster."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import ray

from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Settings
from mizzen.train.group.run import Group
from tests.runtime.train.ray_nodes import HEAD


def job_of(values: dict[str, Any]) -> Job:
    keeping = {**values.pop("keeping")}
    return Job(keeping=Keeping(**{**keeping, "memory": tuple(keeping["memory"])}), **values)


if __name__ == "__main__":
    ray.init(address=sys.argv[1], _node_ip_address=HEAD, log_to_driver=False, logging_level="ERROR")
    Group(job_of(json.loads(os.environ["GROUP_JOB"])), Settings(1, 1), HEAD).run()
