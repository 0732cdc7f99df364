#include "engine/weight_source.h"

#include <algorithm>

#include "core/thread_pool.h"

namespace detinfer {

void for_each_range(ThreadPool& pool, int64_t elements, const Destination& to,
                    const std::function<void(int64_t, int64_t, bf16*)>& body) {
  constexpr int64_t kGrain = 1 << 18;
  const int64_t runs = (elements + to.run - 1) / to.run, pieces = (to.run + kGrain - 1) / kGrain;
  pool.parallel_for(runs * pieces, std::max<int64_t>(1, kGrain / to.run), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t run = i / pieces, at = i % pieces * kGrain, begin = run * to.run + at;
      const int64_t end = std::min({begin + kGrain, (run + 1) * to.run, elements});
      if (begin < end) body(begin, end, to.start + run * to.stride + at);
    }
  });
}

}  // namespace detinfer
