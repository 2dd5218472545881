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
    now = most = 0
    for change in changes(work):
        now += change
        most = max(most, now)
    return most


def changes(work: Callable[[], object]) -> list[int]:
    """Bytes of each allocation (above 0) and release (below) on the CPU, in order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profile:
        work()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    told = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    told.sort(key=lambda event: event.start_ns())
    return [event.nbytes() for event in told]  # pyright: ignore[reportAttributeAccessIssue]
