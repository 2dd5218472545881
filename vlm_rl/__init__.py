"""vlm-rl: reinforcement learning for vision-language models whose reasoning can be questioned."""

__version__ = "0.1.0"
