#include "device/cpu_bandwidth.h"

#include <algorithm>
#include <cstring>

#include "core/aligned.h"
#include "core/thread_pool.h"
#include "core/timing.h"

namespace detinfer {
namespace {

typedef uint64_t Lanes __attribute__((vector_size(32)));

/// A sum that the compiler must compute, by four independent chains of vector additions.
uint64_t sum(const uint64_t* p, int64_t count) {
  Lanes acc[4] = {};
  for (int64_t i = 0; i + 16 <= count; i += 16) {
    for (int j = 0; j < 4; ++j) {
      Lanes x;
      memcpy(&x, p + i + 4 * j, sizeof x);
      acc[j] += x;
    }
  }
  const Lanes all = acc[0] + acc[1] + acc[2] + acc[3];
  return all[0] + all[1] + all[2] + all[3];
}

}  // namespace

double read_bandwidth(ThreadPool& pool) {
  constexpr int64_t kWords = int64_t(1) << 27;  // 1 GiB
  constexpr int64_t kPiece = 1 << 16;
  AlignedBuffer<uint64_t> buffer(kWords);
  pool.parallel_for(kWords / kPiece, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * kPiece; i < end * kPiece; ++i) buffer[i] = uint64_t(i);
  });
  AlignedBuffer<uint64_t> sums(kWords / kPiece);
  const double seconds = best_seconds(5, [&] {
    pool.parallel_for(kWords / kPiece, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sums[i] = sum(buffer.data() + i * kPiece, kPiece);
    });
  });
  return double(kWords) * sizeof(uint64_t) / seconds;
}

}  // namespace detinfer
