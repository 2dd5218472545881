"""The doctor's checks of a sync against vLLM itself, right and with a cache that outlives the weights."""

import pytest

pytest.importorskip("vllm")

from models_small import make, sample

from vlm_rl import models
from vlm_rl.config import VLLMConfig
from vlm_rl.doctor_model import TOLERANCES, Asked, caches_dropped, measure_sync, weights_arrive
from vlm_rl.engine.hf import HFEngine
from vlm_rl.engine.vllm import VLLMEngine
from vlm_rl.types import Sampling

LONG = "what color is it? " * 60  # vLLM keeps prompts by blocks, on a CPU of 128 tokens


class Forgetful(VLLMEngine):
    faulty = False

    def forget(self) -> None:
        if self.faulty:
            self.llm.llm_engine.reset_encoder_cache()
        else:
            super().forget()


@pytest.mark.slow
def test_stale_caches_of_vllm_are_seen(tmp_path):
    policy, chat = make("qwen2_5_vl")
    models.save_model(tmp_path, policy.model, chat)
    engine = Forgetful(str(tmp_path), chat, VLLMConfig(max_num_seqs=16, enforce_eager=True), HFEngine(policy, chat), 2048)
    told = []
    for faulty in (False, True):
        engine.faulty = faulty
        seen, fresh = ([chat.prompt(sample(f"{kind}{faulty}{i}", question=LONG)) for i in range(3)] for kind in ("seen", "fresh"))
        found = measure_sync(policy, engine, Asked(seen, fresh, Sampling(16, 1.0), 8192))
        told.append((weights_arrive(found, TOLERANCES["float32"]), caches_dropped(found, TOLERANCES["float32"])))
    assert [tuple(finding.status for finding in pair) for pair in told] == [("pass", "pass"), ("pass", "fail")], told
