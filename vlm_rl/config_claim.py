"""The schema of a claim, `vlm-rl lab run configs/claims/CLAIM.yaml`: what is claimed, what is trained, and how it is decided, said before
the first run. Reads no files.
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vlm_rl.config_section import Section

Direction = Literal["up", "down", "same"]


class LabJudgeConfig(Section):
    """A judge of `vlm-rl lab judge`, started for each training of the arm. `name` is that under `judges:` in the arm's config."""

    name: str = "exact"
    kind: Literal["honest", "noisy", "hackable"] = "honest"
    noise: float = Field(default=0.2, ge=0, le=1)
    hack: Literal["length", "flattery", "boxes"] = "length"


class ArmConfig(Section):
    """`config` and `overrides` are those of `vlm-rl train`; without a config it is the policy that others start from, as it is."""

    config: str | None = None
    overrides: tuple[str, ...] = ()
    judge: LabJudgeConfig | None = None

    @model_validator(mode="after")
    def _trained(self) -> "ArmConfig":
        if self.config is None and (self.overrides or self.judge):
            raise ValueError("overrides and judge are those of a training; give the arm a config")
        return self


class TestConfig(Section):
    """One comparison: a metric of `arm` less that of the baseline, or less `against_metric` of `against_arm`.

    A metric is a figure of the evaluation by its label and name: accuracy/accuracy, consistency/exact, scene_truth/claim_truth,
    perturb/wrong_caption/accuracy. `margin` is the smallest effect of interest, in the metric's unit (0.05 of a share: 5 points): an
    interval that lies below it in the claimed direction (`same`: within it on both sides) says that there is no such effect.
    """

    __test__ = False  # no test of pytest
    arm: str
    metric: str
    direction: Direction
    margin: float = Field(gt=0)
    against_arm: str | None = Field(default=None, description="another arm than the baseline")
    against_metric: str | None = Field(default=None, description="another metric than `metric`")

    def arms(self, baseline: str) -> set[str]:
        """The two that are compared, or the one that is compared with itself."""
        return {self.arm, self.against_arm or baseline}


class EvaluationConfig(Section):
    """`config` and `overrides` are those of `vlm-rl eval`; `judge` is started for it as for an arm."""

    config: str
    overrides: tuple[str, ...] = ()
    judge: LabJudgeConfig | None = None


class QuickConfig(Section):
    """The quick form: other seeds, overrides behind those of the full form, and where `arms` are named those alone, with their tests."""

    seeds: tuple[int, ...]
    arms: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()


class ClaimConfig(Section):
    """Everything but `amendments` is pre-registered: it is hashed, and results under another hash are not gone on with unless a new line
    under `amendments` says what was changed, when, and what was known by then. That line stands in the report.
    """

    claim: str = Field(min_length=1, description="in words")
    source: str = Field(min_length=1, description="where it is claimed, an arXiv id")
    policy: str = Field(default="data/policies/scenes", description="what trainings start from and arms without a config are")
    arms: dict[str, ArmConfig]
    baseline: str
    seeds: tuple[int, ...] = Field(min_length=1)
    train: tuple[str, ...] = Field(default=(), description="overrides of every training, before those of the arm")
    evaluation: EvaluationConfig
    primary: TestConfig
    secondary: tuple[TestConfig, ...] = Field(default=(), description="told beside it, adjusted by Holm; they decide nothing")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    quick: QuickConfig
    amendments: tuple[str, ...] = ()

    @field_validator("arms")
    @classmethod
    def _labels(cls, arms: dict[str, ArmConfig]) -> dict[str, ArmConfig]:
        if bad := [name for name in arms if not name.replace("_", "a").isalnum()]:
            raise ValueError(f"an arm's name has letters, digits and _ only: '{bad[0]}'")
        return arms

    @model_validator(mode="after")
    def _known(self) -> "ClaimConfig":
        for place, test in (("primary", self.primary), *((f"secondary[{i}]", test) for i, test in enumerate(self.secondary))):
            for key, arm in (("arm", test.arm), ("against_arm", test.against_arm)):
                if arm is not None and arm not in self.arms:
                    raise ValueError(f"{place}.{key}: no arm is called '{arm}'; known: {', '.join(self.arms)}")
            if (test.against_arm or self.baseline) == test.arm and (test.against_metric or test.metric) == test.metric:
                raise ValueError(f"{place} compares {test.metric} of '{test.arm}' with itself; name another arm, or against_metric")
        needed = {self.baseline, *self.primary.arms(self.baseline)}
        if self.quick.arms and not needed <= set(self.quick.arms) <= set(self.arms):
            raise ValueError(f"quick.arms: they are arms, and the primary test needs {', '.join(sorted(needed))}")
        if self.baseline not in self.arms:
            raise ValueError(f"baseline: no arm is called '{self.baseline}'; known: {', '.join(self.arms)}")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.quick.seeds)) < len(self.quick.seeds):
            raise ValueError("seeds: one is named twice")
        return self

    def quickly(self) -> "ClaimConfig":
        """The claim in its quick form."""
        arms = {name: arm for name, arm in self.arms.items() if name in (self.quick.arms or self.arms)}
        asked = self.evaluation
        changes = {
            "arms": arms,
            "seeds": self.quick.seeds,
            "train": (*self.train, *self.quick.train),
            "evaluation": asked.model_copy(update={"overrides": (*asked.overrides, *self.quick.evaluation)}),
            "secondary": tuple(test for test in self.secondary if test.arms(self.baseline) <= arms.keys()),
        }
        return self.model_copy(update=changes)

    @property
    def tests(self) -> tuple[TestConfig, ...]:
        """The primary one first."""
        return (self.primary, *self.secondary)
