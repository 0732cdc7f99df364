#include "core/thread_pool.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"

namespace detinfer {
namespace {

/// How long a thread looks for the next loop before it sleeps: a decode step is hundreds of short loops, and waking a
/// sleeping thread costs more than most of them.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::exception& error) {
    const int started = this->threads();
    stop();
    throw Error(ErrorCode::kOutOfMemory, "only " + std::to_string(started) + " of " + std::to_string(threads) +
                                             " threads could be started (" + error.what() + "); lower --threads");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) {
    for (int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count));
    return;
  }
  body_ = &body;
  count_ = count;
  grain_ = grain;
  ranges_ = (count + grain - 1) / grain;
  unfinished_.store(ranges_, std::memory_order_relaxed);
  {
    // Under the lock, so that a worker that is about to sleep can't miss it.
    std::lock_guard<std::mutex> lock(mutex_);
    untaken_.store(ranges_, std::memory_order_release);
  }
  wake_.notify_all();
  while (run_one()) {
  }
  for (int i = 0; unfinished_.load(std::memory_order_acquire) > 0; ++i) {
    // A worker that holds a range may have lost its core; give it this one.
    if (i < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

bool ThreadPool::run_one() {
  int64_t left = untaken_.load(std::memory_order_acquire);
  do {
    if (left == 0) return false;
  } while (!untaken_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel));
  const int64_t begin = (ranges_ - left) * grain_;
  try {
    (*body_)(begin, std::min(begin + grain_, count_));
  } catch (...) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
  unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  return true;
}

void ThreadPool::work() {
  while (!stop_) {
    for (int i = 0; i < kSpins && untaken_.load(std::memory_order_acquire) == 0; ++i) pause();
    if (untaken_.load(std::memory_order_acquire) == 0) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || untaken_.load(std::memory_order_acquire) > 0; });
    }
    while (run_one()) {
    }
  }
}

}  // namespace detinfer
