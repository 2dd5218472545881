"""How much memory a piece of work takes at its peak, beyond what was there before: every allocation and release of torch's allocator.

On a CPU the allocator tells the profiler of each, with the time; the largest running sum is the peak. It counts what kernels allocate for
themselves through torch, not the scratch of libraries below it. The same work gives the same number, whatever else the machine does.
"""

from collections.abc import Callable

import torch


def peak(work: Callable[[], object]) -> int:
    """Bytes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profile:
        work()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    told = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(told, key=lambda event: event.start_ns()):
        now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        most = max(most, now)
    return most
