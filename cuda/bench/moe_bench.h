#pragma once

namespace detinfer {

/// Prints what a layer of experts reaches on the current device. @param bandwidth bytes per second that it reads
void bench_moe_cuda(double bandwidth);

/// Prints the times of the expert products by every schedule. @param rows_list numbers of rows, such as "1,16"
/// @throws Error kInvalidRequest
void bench_moe_schedules(const char* rows_list);

}  // namespace detinfer
