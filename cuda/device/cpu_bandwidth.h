// How fast this machine reads memory: the floor of decoding.
#pragma once

namespace detinfer {

class ThreadPool;

/// Bytes per second that the pool's threads read from a buffer far larger than the caches, best of several passes.
double read_bandwidth(ThreadPool& pool);

}  // namespace detinfer
