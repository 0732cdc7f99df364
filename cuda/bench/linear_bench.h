#pragma once

namespace detinfer {

/// Prints the linear layers of a Qwen3-8B layer and its lm_head beside cuBLAS and the floor, over numbers of rows.
/// @param bandwidth bytes per second that the device reads
void bench_linear_cuda(double bandwidth);

/// Prints for each of those layers every schedule that comes close to the best, for tuning the choice.
/// @param rows the numbers of rows, separated by commas
void bench_linear_schedules(const char* rows);

}  // namespace detinfer
