"""The main job, end to end, as a user would do it: `mizzen up`, `kubectl apply`, `kubectl wait`, requests."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
STEPS = (
    ("dataset/tweets", "Ready"),
    ("searchjob/tweets-search", "Succeeded"),
    ("trainingjob/tweets-baseline", "Succeeded"),
    ("trainingjob/tweets", "Succeeded"),
    ("modelservice/tweets", "Ready"),
)
SENTENCES = (
    "I love this so much, best day ever!",
    "This is the worst service I have ever had.",
    "The meeting is at 3 pm on Thursday.",
    "just saw a self driving car and it was awesome",
    "my flight got cancelled again, thanks for nothing",
)
REQUESTS = 200
DEADLINE_SECONDS = 900
ADDRESS = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"

console = Console(highlight=False)


class Cluster:
    """kubectl against the embedded cluster."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.kubeconfig = state / "kubeconfig"

    def command(self, *args: str) -> list[str]:
        return [str(BIN / "kubectl"), "--kubeconfig", str(self.kubeconfig), *args]

    def kubectl(self, *args: str) -> str:
        done = subprocess.run(self.command(*args), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, resource: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", resource, "-o", "json"))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=Path(os.environ.get("MIZZEN_HOME", Path.home() / ".mizzen")))
    state = parser.parse_args().state_dir
    started = time.monotonic()

    console.rule("1. the embedded cluster, and the chart")
    if subprocess.run([str(BIN / "mizzen"), "up", "--state-dir", str(state)], check=False).returncode != 0:
        raise SystemExit("mizzen up failed; its message is above")
    cluster = Cluster(state)

    console.rule("2. kubectl apply -f examples/tweets")
    console.print(cluster.kubectl("apply", *(a for f in sorted(HERE.glob("*.yaml")) for a in ("-f", str(f)))).rstrip())
    applied = time.monotonic()

    console.rule("3. kubectl wait")
    with ThreadPoolExecutor(1) as pool:
        baseline: Future[dict[str, float]] | None = None
        for resource, condition in STEPS:
            wait_for(cluster, resource, condition, applied)
            if resource == "dataset/tweets":
                baseline = pool.submit(tfidf, cluster)
        assert baseline is not None
        job_seconds = time.monotonic() - applied
        report(cluster, baseline.result())
    console.print(f"\nThe job took {job_seconds:.0f} s, all in all {time.monotonic() - started:.0f} s.")
    console.print(
        f"To stop:  mizzen down --state-dir {state}   (make down; add --purge to forget everything)", soft_wrap=True
    )


def wait_for(cluster: Cluster, resource: str, condition: str, since: float) -> None:
    """`kubectl wait` that shows the condition's message whenever it changes, and ends where it is False for good."""
    waiting = subprocess.Popen(
        cluster.command("wait", f"--for=condition={condition}", resource, f"--timeout={DEADLINE_SECONDS}s"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown = ""
    while True:
        try:
            code: int | None = waiting.wait(timeout=3)
        except subprocess.TimeoutExpired:
            code = None
        found = cluster.get(resource)
        state = next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == condition), None)
        line = f"{state['reason']}: {state['message']}" if state else "waiting for the operator"
        if line != shown:
            console.print(f"[dim]{time.monotonic() - since:4.0f} s[/]  {resource}  {line}", soft_wrap=True)
            shown = line
        if code == 0:
            return
        if code is not None or (state and condition == "Succeeded" and state["status"] == "False"):
            waiting.terminate()
            raise SystemExit(f"{resource} did not become {condition}: {line}\nSee: kubectl describe {resource}")


def tfidf(cluster: Cluster) -> dict[str, float]:
    """Accuracy of the majority class and of TF-IDF with logistic regression, on the very same split."""
    volume = cluster.get("pvc/mizzen-artifacts")["spec"]["volumeName"]
    folder = cluster.get(f"pv/{volume}")["spec"]["hostPath"]["path"]
    uri = cluster.get("dataset/tweets")["status"]["uri"].removeprefix("file:///artifacts/")
    done = subprocess.run(
        [sys.executable, str(HERE / "baseline.py"), str(Path(folder) / uri)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"the TF-IDF baseline failed: {done.stderr.strip()}")
    scores: dict[str, float] = json.loads(done.stdout)
    return scores


def report(cluster: Cluster, baseline: dict[str, float]) -> None:
    service = cluster.get("modelservice/tweets")
    url = service["status"]["url"]
    console.rule("4. kubectl get mizzen")
    console.print(cluster.kubectl("get", "mizzen").rstrip(), soft_wrap=True)

    console.rule(f"5. POST {url}/predict")
    classes = predict(url, SENTENCES[0])[1]["probabilities"]
    table = Table("sentence", "answer", *classes, "variant")
    for sentence in SENTENCES:
        variant, answer = predict(url, sentence)
        table.add_row(sentence, answer["label"], *(f"{p:.2f}" for p in answer["probabilities"].values()), variant)
    console.print(table)
    answered = Counter(predict(url, SENTENCES[i % len(SENTENCES)])[0] for i in range(REQUESTS))
    console.print(f"{REQUESTS} requests: " + ", ".join(f"{n} by {variant}" for variant, n in answered.most_common()))

    console.rule("6. accuracy on the test split")
    scores = {
        "majority class": baseline["majority"],
        "TF-IDF + logistic regression": baseline["tfidf"],
        "text-bag (champion)": test_accuracy(cluster, "trainingjob/tweets-baseline"),
        "winner of the search (candidate)": test_accuracy(cluster, "trainingjob/tweets"),
    }
    table = Table("model", "accuracy", "± standard error")
    for name, accuracy in scores.items():
        table.add_row(name, f"{accuracy:.3f}", f"{(accuracy * (1 - accuracy) / baseline['rows']) ** 0.5:.3f}")
    console.print(table)

    console.rule("7. where to look")
    address = cluster.kubectl("get", "service", "mizzen-mlflow", "-n", "mizzen-system", "-o", ADDRESS)
    console.print(f"MLflow   http://{address}")
    console.print(f"Service  {url}/predict   (Open Inference Protocol: {url}/v2)", soft_wrap=True)
    console.print(f"Metrics  {url}/metrics", soft_wrap=True)
    console.print(f"kubectl  export KUBECONFIG={cluster.kubeconfig}", soft_wrap=True)


def test_accuracy(cluster: Cluster, job: str) -> float:
    accuracy: float = cluster.get(job)["status"]["trainerStatus"]["metrics"]["test_accuracy"]
    return accuracy


def predict(url: str, sentence: str) -> tuple[str, dict[str, Any]]:
    """The variant that answered, and its answer."""
    request = urllib.request.Request(  # noqa: S310 (the URL is the service's own)
        f"{url}/predict", data=json.dumps({"text": sentence}).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return response.headers["mizzen-variant"], json.load(response)


if __name__ == "__main__":
    main()
