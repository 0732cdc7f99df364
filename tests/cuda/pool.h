// The threads on which the CPU computes what a GPU is compared with.
#pragma once

#include <algorithm>
#include <thread>

#include "core/thread_pool.h"

namespace detinfer::testing {

inline ThreadPool& pool() {
  static ThreadPool threads(int(std::max(1u, std::thread::hardware_concurrency())));
  return threads;
}

}  // namespace detinfer::testing
