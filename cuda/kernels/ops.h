// Every operation that a model is made of, as a table of functions: models and layers call it and never see a device.
// What each one computes is written in the contract header of its kernel folder. Pointers are to the device's memory
// unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/numerics.h"
#include "kernels/attention/attention.h"
#include "kernels/rope/rope.h"
#include "kernels/sampler/sampler.h"

namespace detinfer {

/// A weight matrix [n][k] in a device's own layout.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int n() const = 0;
  virtual int k() const = 0;
  virtual int64_t bytes() const = 0;
};

struct AttentionArgs {
  const bf16* q = nullptr;
  int heads = 0;
  const bf16* keys = nullptr;
  const bf16* values = nullptr;
  KvLayout layout;
  /// In host memory.
  const AttentionSlice* slices = nullptr;
  int slice_count = 0;
  bf16* out = nullptr;
};

class Ops {
 public:
  virtual ~Ops() = default;

  /// Name of the GPU or instruction set.
  virtual std::string device_name() const = 0;
  /// Rows that one pass through the model should have at most: more make buffers larger and nothing faster.
  virtual int pass_rows() const = 0;

  /// Zeroed memory, which the device may commit on first use. @throws Error kOutOfMemory
  virtual std::shared_ptr<void> allocate(size_t bytes) = 0;
  /// Copies from host memory.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  /// @param weights row-major [n][k] in host memory
  virtual std::unique_ptr<Matrix> pack(const bf16* weights, int n, int k) = 0;

  virtual void embedding(const Matrix& table, const int32_t* ids, int count, bf16* y) = 0;
  virtual void gather_rows(const bf16* table, const int32_t* rows, int count, int n, bf16* y) = 0;
  virtual void rms_norm(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y) = 0;
  virtual void add_rms_norm(bf16* residual, const bf16* delta, int rows, int n, const bf16* weight, float eps,
                            bf16* y) = 0;
  virtual void linear(const bf16* x, int rows, const Matrix& w, bf16* y) = 0;
  virtual void linear(const bf16* x, int rows, const Matrix& w, float* y) = 0;
  virtual void rope(const RopeArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void swiglu(const bf16* gate_up, int rows, int n, bf16* y) = 0;
  /// @param requests in host memory, as everything that they point to
  virtual void evaluate_rows(const float* logits, int rows, int n, RowRequest* requests) = 0;
};

/// An array in the device's memory.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(Ops& ops, size_t count) : memory_(ops.allocate(count * sizeof(T))), count_(count) {}

  T* data() { return static_cast<T*>(memory_.get()); }
  const T* data() const { return static_cast<const T*>(memory_.get()); }
  size_t size() const { return count_; }

  /// Makes room for `count` elements; what was in the array is lost when it grows.
  T* reserve(Ops& ops, size_t count) {
    if (count > count_) {
      *this = DeviceArray();
      // Ahead of the need, so that steps of slowly growing size don't allocate each time.
      *this = DeviceArray(ops, count + count / 2);
    }
    return data();
  }

 private:
  std::shared_ptr<void> memory_;
  size_t count_ = 0;
};

}  // namespace detinfer
