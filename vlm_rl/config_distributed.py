"""The `distributed:` section of a training: how its processes share the work. How many there are is torchrun's business."""

from typing import Literal

from pydantic import Field, model_validator

from vlm_rl.config_section import Section


class DistributedConfig(Section):
    """ZeRO (arXiv 1910.02054), by DeepSpeed: 1 shares out the optimiser's state among the processes, 2 gradients too, 3 weights too."""

    zero: Literal[0, 1, 2, 3] = Field(default=0, description="0: every process holds everything, and DeepSpeed is not needed")
    offload: Literal["none", "optimizer", "all"] = Field(default="none", description="what waits in the CPU's memory; all: weights too")

    @model_validator(mode="after")
    def _offloaded(self) -> "DistributedConfig":
        if self.offload == "optimizer" and self.zero == 0:
            raise ValueError("distributed.offload=optimizer is DeepSpeed's work; write distributed.zero=1, 2 or 3")
        if self.offload == "all" and self.zero != 3:
            raise ValueError(f"distributed.offload=all with distributed.zero={self.zero}: weights can wait elsewhere with zero=3 only")
        return self
