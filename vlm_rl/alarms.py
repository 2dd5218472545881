"""Warnings, by name, when a training's numbers move the way they do when traces collapse or a judge is gamed; where asked for, an end.

Each alarm compares a step with the run's first one. The numbers are a policy's own (`monitor/`, `rollout/`) and what judges said
(`reward/LABEL/judged`). After arXiv 2602.12506 and 2507.08794, in whose runs a judge's approval rose while texts shrank to templates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from vlm_rl.errors import UserError, unknown

Metrics = Mapping[str, float]
JUDGED = "reward/*/judged"


@dataclass(frozen=True)
class Alarm:
    """Rings when `metric` falls below `threshold` x its first value, or, being a share, rises by more than `threshold`; where `pleased`,
    only while a judge says more than at first."""

    metric: str
    way: Literal["falls", "rises"]
    threshold: float
    pleased: bool = False

    def rings(self, first: Metrics, now: Metrics, threshold: float) -> bool:
        if self.metric not in first or self.metric not in now or (self.pleased and not judge_rose(first, now)):
            return False
        before, after = first[self.metric], now[self.metric]
        return after < threshold * before if self.way == "falls" else after > before + threshold

    def mute(self, first: Metrics, threshold: float) -> str | None:
        """Why it can never ring in a run that began like this, or None."""
        if self.metric not in first:
            return f"{self.metric} is not measured"
        before = first[self.metric]
        if self.way == "rises" and before + threshold >= 1:
            return f"{self.metric} is {before:.3g} at the first step already and cannot rise by more than {threshold:g}"
        return f"{self.metric} is {before:.3g} at the first step already" if self.way == "falls" and before * threshold <= 0 else None


ALARMS: dict[str, Alarm] = {
    "trace_length": Alarm("monitor/trace_tokens", "falls", 0.5),
    "short_traces": Alarm("monitor/short_traces", "rises", 0.3),
    "common_prefix": Alarm("monitor/common_prefix", "rises", 0.3),
    "duplicate_traces": Alarm("monitor/duplicate_traces", "rises", 0.3),
    "repetition": Alarm("monitor/distinct_4grams", "falls", 0.5),
    "compression": Alarm("monitor/compression", "falls", 0.5),
    "entropy": Alarm("rollout/surprisal", "falls", 0.2),
    "truncated": Alarm("rollout/truncated", "rises", 0.3),
    "pleased_judge": Alarm("monitor/trace_tokens", "falls", 0.5, pleased=True),
    "pleased_judge_length": Alarm("rollout/length", "falls", 0.2, pleased=True),
}


def judge_rose(first: Metrics, now: Metrics) -> bool:
    """Whether the mean of what any judge said is above that of the first step."""
    return any(now[name] > value for name, value in first.items() if fnmatchcase(name, JUDGED) and name in now)


class Alarms:
    """`thresholds` replace those of ALARMS by name, None silences one; `stop_on` says after how many steps of ringing in a row training
    is to end. A resumed process hands in the lines of the steps done before it goes on."""

    def __init__(self, thresholds: Mapping[str, float | None], stop_on: Mapping[str, int] | None = None):
        check_alarms(thresholds, stop_on or {})
        self.thresholds = {name: alarm.threshold for name, alarm in ALARMS.items()} | dict(thresholds)
        self.stop_on = dict(stop_on or {})
        self.first: Metrics | None = None
        self.ringing: dict[str, int] = {}
        self.stop: str | None = None

    def __call__(self, metrics: Metrics) -> tuple[dict[str, float], list[str]]:
        """The step's metrics -> how many alarms ring, under monitor/alarms, and a text for each that did not ring the step before; at the
        first step one for each that is to stop the run and never can."""
        set_to = {name: limit for name, limit in self.thresholds.items() if limit is not None}
        if self.first is None:
            self.first = dict(metrics)
            mute = {name: ALARMS[name].mute(metrics, set_to[name]) for name in self.stop_on}
            return {"monitor/alarms": 0.0}, [f"guards.stop_on.{name} cannot stop this run: {why}" for name, why in mute.items() if why]
        first = self.first
        now = {name for name, limit in set_to.items() if ALARMS[name].rings(first, metrics, limit)}
        texts = {name: _text(name, first, metrics, set_to[name]) for name in ALARMS if name in now}
        fresh = [text for name, text in texts.items() if name not in self.ringing]
        self.ringing = {name: self.ringing.get(name, 0) + 1 for name in now}
        over = next((name for name, steps in self.stop_on.items() if self.ringing.get(name, 0) >= steps), None)
        self.stop = f"stopped by guards.stop_on.{over}={self.stop_on[over]}: {texts[over]}" if over else None
        return {"monitor/alarms": float(len(now))}, fresh


def check_alarms(thresholds: Mapping[str, float | None], stop_on: Mapping[str, int]) -> None:
    """Raises UserError for an alarm that is not there, or is silenced and should stop a run."""
    for key, names in (("guards.alarms", thresholds), ("guards.stop_on", stop_on)):
        for name in names:
            if name not in ALARMS:
                raise unknown("alarm", name, ALARMS, key)
    for name in stop_on:
        if thresholds.get(name, 0.0) is None:
            raise UserError(f"guards.stop_on.{name}: guards.alarms.{name} is null, so it never rings; give it a threshold")


def _text(name: str, first: Metrics, now: Metrics, limit: float) -> str:
    alarm = ALARMS[name]
    meanwhile = ", while a judge says more" if alarm.pleased else ""
    told = f"{alarm.metric} is {now[alarm.metric]:.3g}, was {first[alarm.metric]:.3g} at the first step{meanwhile}"
    return f"alarm {name}: {told} (guards.alarms.{name}={limit:g}); look at the latest rollouts"
