#pragma once

namespace detinfer {

/// Prints what the sampler reaches on the current device. @param bandwidth bytes per second that it reads
void bench_sampler_cuda(double bandwidth);

}  // namespace detinfer
