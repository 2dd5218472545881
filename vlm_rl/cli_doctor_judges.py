"""How `vlm-rl doctor` tries the judges of a config: asked as its rewards ask them, about a row of its data. Composition only."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from data import Rows
from eval.judge_asking import Asking, dressed
from rewards.base import Reward
from rewards.judge_call import JudgeCall, why_unread
from rewards.judge_rows import reasoning
from rewards.judging import MASTER_KEYS
from vlm_rl import doctor
from vlm_rl.config_judge_eval import AskConfig
from vlm_rl.config_judges import JudgeConfig
from vlm_rl.doctor import Check, Finding, JudgeTrial
from vlm_rl.engine.base import Judge
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample

GRADING = ("thinking", "trained")  # prompts that grade a reasoning and need no more than it


def judge_checks(
    configs: Mapping[str, JudgeConfig], judges: Mapping[str, Judge], rewards: Iterable[Reward], rows: Callable[[], Rows]
) -> list[Check]:
    """One for each judge; `rows` are read only when a judge is tried."""
    if not judges:
        return [Check("judges", lambda: doctor.spared("the config has none"))]
    listed = list(rewards)
    return [Check(f"judge {name}", partial(_try, name, configs[name].kind, judge, listed, rows)) for name, judge in judges.items()]


def _try(name: str, kind: str, judge: Judge, rewards: Sequence[Reward], rows: Callable[[], Rows]) -> Finding:
    if kind == "embedding":
        judge.probe()
        return doctor.passed("it can be asked; it compares texts and grades no reasoning")
    judge.probe()  # before rows are read
    row, asking = _first(rows()), Asking(name, kind, asked_as(name, rewards))

    def scores(texts: Sequence[str]) -> list[float | str]:
        replies = judge.answer([asking.query(dressed(row, "bare", "", text)) for text in texts])
        read = [(asking.read(reply), reply) for reply in replies]
        return [why_unread(reply) if score is None else score for score, reply in read]

    about = reasoning(row) or str(row.meta.get("trace") or f"I look at what is shown. The answer is {row.answer}.")
    return doctor.judge(JudgeTrial(name, judge.probe, scores), about, MASTER_KEYS)


def asked_as(name: str, rewards: Sequence[Reward]) -> AskConfig:
    """What the first reward that asks this judge sends it: pictures, the row's id, its prompt where that grades a reasoning."""
    for reward in rewards:
        for call in vars(reward).values():
            if isinstance(call, JudgeCall) and call.name == name:
                prompt = str(vars(reward).get("prompt", GRADING[0]))
                fits = prompt if prompt in GRADING or prompt.endswith(".txt") else GRADING[0]
                return AskConfig(prompt=fits, media=call.media, item=call.item, max_new_tokens=call.max_new_tokens)
    return AskConfig()


def _first(rows: Rows) -> Sample:
    """The first row that can be read."""
    for i in range(len(rows)):
        try:
            return rows[i]
        except RowError:
            continue
    raise UserError("no row of the data can be read, so a judge cannot be asked about one")
