#include "core/thread_pool.h"

#include <sys/resource.h>

#include "core/error.h"
#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

/// Bounds the address space of this process while it lives: there is no room for another thread's stack.
class NoMoreMemory {
 public:
  NoMoreMemory() {
    getrlimit(RLIMIT_AS, &before_);
    const rlimit none{0, before_.rlim_max};
    setrlimit(RLIMIT_AS, &none);
  }
  ~NoMoreMemory() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

void threads_that_cannot_be_started_are_refused() {
  // Some do start: on the stacks that the C library keeps of these.
  { ThreadPool pool(3); }
  const std::string message = MESSAGE_OF(Error, {
    const NoMoreMemory limit;
    ThreadPool pool(64);
  });
  CHECK_MESSAGE(message.find("of 64 threads could be started") != std::string::npos, message);
}

void exceptions_of_a_body_are_rethrown() {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    const auto fail_once = [](int64_t begin, int64_t) {
      if (begin == 5) throw Error(ErrorCode::kEngineFailed, "five");
    };
    CHECK_EQ(MESSAGE_OF(Error, pool.parallel_for(100, 1, fail_once)), std::string("five"));
    std::atomic<int> done{0};
    pool.parallel_for(100, 7, [&](int64_t begin, int64_t end) { done += int(end - begin); });
    CHECK_EQ(done.load(), 100);
  }
}

}  // namespace

extern const TestTable kThreadPoolTests = {
    "thread pool",
    {{"threads that cannot be started are refused", threads_that_cannot_be_started_are_refused},
     {"exceptions of a body are rethrown", exceptions_of_a_body_are_rethrown}}};

}  // namespace detinfer::testing
