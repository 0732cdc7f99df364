// Threads of the CPU engine. Work is split over outputs, never over a sum, so the split can't be seen in any bit.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace detinfer {

class ThreadPool {
 public:
  /// @param threads number of threads that work on a loop, the caller included; at least 1.
  /// @throws Error kOutOfMemory when the system does not start so many
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(begin, end) over disjoint ranges that cover [0, count), each of at most `grain` items, and returns
  /// when all are done. An exception of a body is rethrown here. Not reentrant.
  void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

 private:
  void work();
  /// Ends the workers.
  void stop();
  bool run_one();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  /// Ranges that nobody has taken yet. The fields below belong to a loop until its last range is done, so whoever has
  /// taken a range may read them, and a thread that comes late finds nothing and touches nothing.
  std::atomic<int64_t> untaken_{0};
  std::atomic<int64_t> unfinished_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  int64_t ranges_ = 0;
  std::exception_ptr failure_;
};

}  // namespace detinfer
