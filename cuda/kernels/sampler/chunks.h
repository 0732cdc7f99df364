// A row of the vocabulary cut into a few chunks: work for the threads when there are fewer rows than threads. Chunks are
// combined by operations whose order can't be seen: integer sums, maxima.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/thread_pool.h"

namespace detinfer {

constexpr int kMaxChunks = 64;
constexpr int kMinChunk = 8192;

/// One value per chunk, in order; the first `count` are set.
template <class T>
struct ChunkResults {
  std::array<T, kMaxChunks> values;
  int count = 0;
};

/// Calls body(begin, end) -> T for every chunk, on the pool or, when it is null, on the caller alone.
template <class T, class Body>
ChunkResults<T> for_chunks(ThreadPool* pool, int n, const Body& body) {
  const int chunk = std::max(kMinChunk, (n + kMaxChunks - 1) / kMaxChunks);
  ChunkResults<T> results;
  results.count = (n + chunk - 1) / chunk;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      results.values[i] = body(int(i * chunk), std::min(n, int((i + 1) * chunk)));
    }
  };
  if (pool) {
    pool->parallel_for(results.count, 1, run);
  } else {
    run(0, results.count);
  }
  return results;
}

}  // namespace detinfer
