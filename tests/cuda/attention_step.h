// Steps of attention for the tests of the backends on a GPU: sequences in shuffled pages, on both devices.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention/backend.h"
#include "core/cuda_check.h"
#include "kernels/attention/attention.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/pool.h"
#include "tests/native/operands.h"

namespace detinfer::testing {

struct Shape {
  int heads, kv_heads, dim, page_size;

  std::string text() const {
    return std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " + std::to_string(dim) + ", pages of " +
           std::to_string(page_size);
  }
};

/// The sequences of a step in shuffled pages of both devices' layouts, and their new rows' queries.
class Step {
 public:
  struct Sequence {
    /// The last `rows` of `length` positions are new.
    int length, rows;
  };

  /// @param kind of queries and keys @param value_kind of values @param stale what unwritten slots hold
  Step(const Shape& shape, const std::vector<Sequence>& sequences, Operands kind, Operands value_kind, bf16 stale,
       uint64_t seed)
      : shape(shape), cpu{shape.kv_heads, shape.dim, shape.page_size}, gpu{shape.kv_heads, shape.dim, shape.page_size} {
    std::mt19937_64 random(seed);
    std::vector<int> firsts;
    for (const Sequence& s : sequences) {
      firsts.push_back(page_count);
      page_count += (s.length + shape.page_size - 1) / shape.page_size;
    }
    std::vector<int32_t> shuffled(page_count);
    std::iota(shuffled.begin(), shuffled.end(), 0);
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    pages = shuffled;
    for (std::vector<bf16>* v : {&cpu_keys, &cpu_values, &gpu_keys, &gpu_values}) {
      v->assign(size_t(page_count) * gpu.page_elements(), stale);
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      slices.push_back({rows, s.rows, s.length - s.rows, &pages[firsts[i]]});
      rows += s.rows;
      write(s.length, &pages[firsts[i]], kind, value_kind, random);
    }
    q = draw(kind, size_t(rows) * shape.heads * shape.dim, random);
  }

  std::vector<bf16> on_cpu() const {
    std::vector<bf16> out(q.size());
    attention_cpu(pool(), q.data(), shape.heads, cpu_keys.data(), cpu_values.data(), cpu, slices.data(),
                  int(slices.size()), out.data());
    return out;
  }

  AttentionLimits limits() const {
    AttentionLimits limits;
    limits.slices = rows;  // each row may become a slice of its own
    limits.rows = rows;
    limits.pages_per_slice = page_count;
    for (const AttentionSlice& s : slices) limits.decode_splits += s.rows * ((s.start + s.rows) / kSplitKeys + 1);
    return limits;
  }

  /// The slices cut into chunks of at most so many rows.
  std::vector<AttentionSlice> chunks(int chunk) const {
    std::vector<AttentionSlice> result;
    for (const AttentionSlice& s : slices) {
      for (int r = 0; r < s.rows; r += chunk) {
        result.push_back({s.first_row + r, std::min(chunk, s.rows - r), s.start + r, s.pages});
      }
    }
    return result;
  }

  Shape shape;
  KvLayout cpu;
  PagedKvLayout gpu;
  int rows = 0, page_count = 0;
  std::vector<int32_t> pages;
  std::vector<AttentionSlice> slices;
  std::vector<bf16> cpu_keys, cpu_values, gpu_keys, gpu_values, q;

 private:
  void write(int length, const int32_t* ids, Operands kind, Operands value_kind, std::mt19937_64& random) {
    for (int n = 0; n < length; ++n) {
      const int page = ids[n / shape.page_size], slot = n % shape.page_size;
      for (int h = 0; h < shape.kv_heads; ++h) {
        for (int d = 0; d < shape.dim; ++d) {
          const bf16 key = draw(kind, random), value = draw(value_kind, random);
          cpu_keys[cpu.key_offset(page, h, slot, d)] = key;
          cpu_values[cpu.value_offset(page, h, slot, d)] = value;
          gpu_keys[gpu.offset(page, h, slot, d)] = key;
          gpu_values[gpu.offset(page, h, slot, d)] = value;
        }
      }
    }
  }
};

inline std::unique_ptr<AttentionBackend> make_backend(const std::string& backend, const Step& step) {
  return make_attention_backend(backend, step.gpu, step.shape.heads, step.page_count, step.limits());
}

/// A step's data on the GPU and the backend for it.
class OnGpu {
 public:
  OnGpu(const std::string& backend, const Step& step)
      : step_(step),
        keys_(step.gpu_keys),
        values_(step.gpu_values),
        q_(step.q),
        attention_(make_backend(backend, step)) {}

  std::vector<bf16> run(const std::vector<AttentionSlice>& slices) {
    DeviceBuffer<bf16> out(step_.q.size());
    out.poison();
    attention_->plan(slices.data(), int(slices.size()), nullptr);
    CUDA_CHECK(cudaDeviceSynchronize());
    attention_->attend(q_.data(), keys_.data(), values_.data(), out.data(), nullptr);
    return out.download();
  }

  std::vector<float> run_f32(const std::vector<AttentionSlice>& slices) {
    DeviceBuffer<float> out(step_.q.size());
    out.poison();
    attention_->plan(slices.data(), int(slices.size()), nullptr);
    CUDA_CHECK(cudaDeviceSynchronize());
    attention_->attend_f32(q_.data(), keys_.data(), values_.data(), out.data(), nullptr);
    return out.download();
  }

 private:
  const Step& step_;
  DeviceBuffer<bf16> keys_, values_, q_;
  std::unique_ptr<AttentionBackend> attention_;
};

}  // namespace detinfer::testing
