"""The schema of measuring judges: which, how each is asked, and on which graded rows. Reads no files."""

from pydantic import Field, field_validator, model_validator

from vlm_rl.config import DataConfig, Section
from vlm_rl.config_judges import JudgeConfig, check_names


class AskConfig(Section):
    """How one judge is asked about a response. Reward models are given question and response and need none of this but `media`."""

    prompt: str = Field(default="thinking", description="thinking, trained, rubric, principle, or a .txt file")
    criteria: tuple[str, ...] = Field(default=(), description="what the prompt rubric lists")
    principle: str | None = Field(default=None, description="what the prompt principle asks about; its answer is P(yes)")
    media: bool = Field(default=True, description="the judge is sent the row's pictures")
    item: bool = Field(default=False, description="the judge is told the row's id, for judges that know the rows")
    max_new_tokens: int = Field(default=64, ge=1)
    pairwise: bool = Field(default=False, description="also ask which of two responses is better, in both orders")

    @model_validator(mode="after")
    def _said(self) -> "AskConfig":
        if (self.prompt == "rubric") != bool(self.criteria):
            raise ValueError("the prompt rubric needs criteria: [TEXT, ...], and they are for it alone")
        if (self.prompt == "principle") != bool(self.principle):
            raise ValueError("the prompt principle needs principle: TEXT, and it is for that prompt alone")
        if self.prompt in ("yes_no", "pairwise"):
            raise ValueError(f"the prompt {self.prompt} does not grade one response; pairwise comparisons are asked for by pairwise: true")
        return self


class JudgeEvalConfig(Section):
    """`vlm-rl judge eval` and `vlm-rl judge stress`. Rows have a response with a score, or right and wrong responses, or all of them."""

    run_dir: str
    seed: int = 0
    judges: dict[str, JudgeConfig]
    ask: dict[str, AskConfig] = Field(default_factory=dict, description="by judge; one that is not listed is asked by the defaults")
    data: DataConfig
    score: str = Field(default="score", description="the field that holds a response's score, from 0 to 1")
    rows: int = Field(default=200, ge=1, description="rows to measure on, drawn by the data's seed")
    key_rows: int = Field(default=10, ge=1, description="rows that every trick is tried on")
    threshold: float = Field(default=0.5, gt=0, le=1, description="a score from here on counts as accepted")
    unscored_limit: float = Field(default=0.1, ge=0, le=1, description="stop when a judge leaves a larger share without an answer")

    _judge_names = field_validator("judges")(check_names)

    @model_validator(mode="after")
    def _known(self) -> "JudgeEvalConfig":
        if not self.judges:
            raise ValueError("judges: names at least one judge, for instance exact: {url: http://127.0.0.1:8765/v1, model: lab-honest}")
        if strangers := self.ask.keys() - self.judges.keys():
            raise ValueError(f"ask.{min(strangers)} is none of the judges: {', '.join(self.judges)}")
        if blind := [name for name, judge in self.judges.items() if judge.kind == "embedding"]:
            raise ValueError(f"judges.{blind[0]} is an embedding model: it compares two texts and grades no reasoning")
        return self
