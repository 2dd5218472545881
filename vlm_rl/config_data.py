"""The sections that say which rows are used: a data set, a mixture of them, a curriculum. Reads no files."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vlm_rl.config_section import Section


class CurriculumConfig(Section):
    """Easy rows first: over the first `warm_steps` steps the rows drawn from grow from the easiest to all.

    `field` holds a number in each row's meta, larger being harder; rows without one count as the hardest. hard_first turns it round.
    """

    field: str = "difficulty"
    order: Literal["easy_first", "hard_first"] = "easy_first"
    warm_steps: int = Field(ge=1)


class DataPart(Section):
    """One part of a mixture: `weight` is its share of the rows drawn, relative to the other parts' weights and not to their sizes."""

    weight: float = Field(default=1.0, gt=0)
    label: str | None = Field(default=None, description="put before the row ids of this part; by default its number, from 0")
    data: "DataConfig"

    @model_validator(mode="after")
    def _whole_mixture_only(self) -> "DataPart":
        if self.data.curriculum is not None or self.data.name == "mixture":
            raise ValueError("a part of a mixture is no mixture and has no curriculum; write curriculum beside parts")
        return self


class DataConfig(Section):
    """Which rows. `name` is an entry of the DATASETS table; `path` is a file, a directory or a hub id for those that read one."""

    name: str
    path: str | None = None
    config: str | None = Field(default=None, description="which configuration of a hub data set, or folder of a local one")
    split: str = "train"
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub data set")
    media_root: str | None = Field(default=None, description="where relative media paths start; by default the folder of the file")
    mapping: str | None = Field(default=None, description="how a row is read: an entry of the TRAINING_SETS table or module:function")
    columns: dict[str, str] = Field(default_factory=dict, description="our field -> the column that holds it, such as answer: solution")
    where: dict[str, Any] = Field(default_factory=dict, description="keep rows by field: a value, a list of values, or {min, max}")
    deduplicate: bool = Field(default=False, description="keep the first of rows with equal question, options and media content")
    parts: tuple[DataPart, ...] = Field(default=(), description="of name: mixture")
    curriculum: CurriculumConfig | None = None
    limit: int | None = Field(default=None, ge=1, description="use only this many rows, drawn by the data set's own seed")
    seed: int = 0
    template: str = Field(default="plain", description="how a question and its options become text: an entry of the TEMPLATES table")
    options: tuple[int, int] = Field(default=(2, 4), description="fewest and most options of generated multiple choice")
    on_bad_row: Literal["error", "skip"] = "error"
    demonstrations: dict[str, float] = Field(default_factory=dict, description="shares of imperfection in generated demonstrations")

    @field_validator("where")
    @classmethod
    def _conditions(cls, where: dict[str, Any]) -> dict[str, Any]:
        for name, wanted in where.items():
            values = list(wanted.values()) if isinstance(wanted, dict) else wanted if isinstance(wanted, list) else [wanted]
            kinds = (int, float) if isinstance(wanted, dict) else (str, int, float, bool)
            ranged = not isinstance(wanted, dict) or wanted.keys() <= {"min", "max"}
            if not values or not ranged or not all(isinstance(value, kinds) for value in values):
                raise ValueError(f"{name}: write a value, a list of values, or {{min: NUMBER, max: NUMBER}}")
        return where

    @model_validator(mode="after")
    def _parts_of_mixtures(self) -> "DataConfig":
        if (self.name == "mixture") != bool(self.parts):
            raise ValueError("name: mixture needs parts: [{weight: 1, data: {...}}, ...], and parts are for name: mixture")
        if self.mapping and self.columns:
            raise ValueError("set mapping or columns, not both")
        return self
