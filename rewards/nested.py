"""A reward inside a reward's own settings: {use: hybrid, by: judge, ...}."""

from collections.abc import Mapping
from typing import Any

from rewards.base import Reward
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError


def nested(key: str, entry: Mapping[str, Any]) -> Reward:
    """The reward that `entry` names under `use`, with its arguments. Raises UserError for keys that mean nothing there."""
    from rewards import make_rewards  # the table that names the file this is called from

    config = RewardConfig(**entry)
    if config.model_fields_set & RewardConfig.model_fields.keys() != {"use"}:
        raise UserError(
            f"{key} is a reward's name under `use` and its own arguments; weight, schedule, gate and the like mean nothing here"
        )
    return make_rewards({key: config})[key]
