"""The maths of the update as pure functions of tensors and floats: advantages, losses, KL, schedules. No config, logger or device."""
